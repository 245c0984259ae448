//! Integration tests of the core: everything against a simple model.
mod bitmap;

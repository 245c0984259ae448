//! The pool against a map, with chunks from the heap so that Miri can follow.
mod model;
mod races;

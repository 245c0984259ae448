//! one-time remedy

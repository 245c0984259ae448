//! What this machine allows, and the one-time remedy.

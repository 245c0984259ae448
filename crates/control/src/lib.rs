//! Looking at and changing a running vswap from outside, through a Unix socket.
//!
//! - [`protocol`]: what is asked and answered, a line of JSON each.
//! - [`Server`]: listens in the running one, asks who calls ([`Controlled`] does what is wanted).
//! - [`Client`]: finds the running ones and talks to one.
//! - [`place`]: where the sockets are.
//!
//! Invariants: only the user who runs it and root are listened to, whatever the file modes say; a caller that says nonsense, nothing,
//! or goes away is no harm to anyone else; a removal ends when its caller does.
//!
//! Neighbours: knows nothing of pages or processes; `vswap run` serves, the `vswap` command calls.
#![forbid(unsafe_code)]

mod client;
pub mod place;
pub mod protocol;
mod server;

pub use client::{Client, ClientError, Run, find};
pub use server::{Controlled, Server};

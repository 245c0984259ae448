//! Objects and stores for programs with tasks, on whichever runtime (feature `async`).
//!
//! Each call is a job of the threads of the crate `blocking`, of which there are as many as are needed, up to 500 (`BLOCKING_MAX_THREADS`): no lock and no device keeps a runtime's
//! threads waiting. Of what is fetched the source alone is polled by the caller's task, so that it may use whatever the caller's runtime has; who waits for another's fetch has no thread.
//! Buffers are passed by value and come back.
//!
//! What is *dropped* ends where it is dropped: the last handle of an object that is gone lets its pages go there, and that of a store closes it ([`AsyncStore::close`] does that elsewhere). A job (`with`) is not to wait for a task: with as many such jobs as
//! there are threads, the task's own would never run.

mod fetch;
mod named;
mod object;
mod store;

pub use named::AsyncNamedObject;
pub use object::AsyncObject;
pub use store::AsyncStore;

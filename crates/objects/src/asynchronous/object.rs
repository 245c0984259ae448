//! [`AsyncObject`]: an object for tasks.

use super::fetch::{fetch, read_through};
use crate::error::{FetchError, ObjectError};
use crate::fetch::Ticket;
use crate::object::{Object, Read};
use crate::store::named::NamedObject;
use blocking::unblock;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// An [`Object`] for programs with tasks; clones are the same object. What has no form of its own here is done by [`AsyncObject::with`].
///
/// Each call is done by a thread of the crate `blocking`, so that none of the caller's runtime waits for a lock or a device. Buffers are passed by value and come back. Calls that are awaited one after the other are
/// done in that order; others in any.
///
/// # Cancellation
/// A future that is dropped before its call has begun has done nothing. What has begun goes on to its end, as a system call does, maybe after the future is gone: nothing is ever half done. A
/// fetch that is dropped gives up at once what it had claimed, and one of those who wait for it takes over; one that is kept, and not polled any more, keeps them waiting.
#[derive(Clone, Debug)]
pub struct AsyncObject(Holder);

/// Who keeps the object.
#[derive(Clone, Debug)]
pub(super) enum Holder {
    Anonymous(Arc<Object>),
    Named(NamedObject),
}

impl Deref for Holder {
    type Target = Object;

    fn deref(&self) -> &Object {
        match self {
            Self::Anonymous(object) => object,
            Self::Named(object) => object,
        }
    }
}

impl From<Object> for AsyncObject {
    fn from(object: Object) -> Self {
        Arc::new(object).into()
    }
}

impl From<Arc<Object>> for AsyncObject {
    fn from(object: Arc<Object>) -> Self {
        Self(Holder::Anonymous(object))
    }
}

impl AsyncObject {
    /// What a named object has of any object. By itself it would write without the room that a store has to promise, so it goes with that only.
    pub(super) fn of_named(object: NamedObject) -> Self {
        Self(Holder::Named(object))
    }

    /// The object, for threads that may wait.
    pub fn get_ref(&self) -> &Object {
        &self.0
    }

    /// Does something with the object on a thread that may wait.
    pub async fn with<T: Send + 'static>(&self, work: impl FnOnce(&Object) -> T + Send + 'static) -> T {
        let object = self.0.clone();
        unblock(move || work(&object)).await
    }

    /// As [`Object::len`].
    pub async fn len(&self) -> u64 {
        self.with(Object::len).await
    }

    /// As [`Object::is_empty`].
    pub async fn is_empty(&self) -> bool {
        self.with(Object::is_empty).await
    }

    /// As [`Object::read`]. The buffer comes back; who drops the future gives it up.
    ///
    /// # Errors
    /// As there.
    pub async fn read<B: AsMut<[u8]> + Send + 'static>(
        &self,
        offset: u64,
        mut buf: B,
    ) -> (Result<Read, ObjectError>, B) {
        self.with(move |object| (object.read(offset, buf.as_mut()), buf)).await
    }

    /// As [`Object::write`]. The bytes come back.
    ///
    /// # Errors
    /// As there.
    pub async fn write<B: AsRef<[u8]> + Send + 'static>(
        &self,
        offset: u64,
        bytes: B,
    ) -> (Result<(), ObjectError>, B) {
        self.with(move |object| (object.write(offset, bytes.as_ref()), bytes)).await
    }

    /// As [`Object::write_dirty`]. The bytes come back.
    ///
    /// # Errors
    /// As there.
    pub async fn write_dirty<B: AsRef<[u8]> + Send + 'static>(
        &self,
        offset: u64,
        bytes: B,
    ) -> (Result<(), ObjectError>, B) {
        self.with(move |object| (object.write_dirty(offset, bytes.as_ref()), bytes)).await
    }

    /// As [`Object::set_len`].
    ///
    /// # Errors
    /// As there.
    pub async fn set_len(&self, len: u64) -> Result<(), ObjectError> {
        self.with(move |object| object.set_len(len)).await
    }

    /// As [`Object::punch`].
    pub async fn punch(&self, range: Range<u64>) {
        self.with(move |object| object.punch(range)).await;
    }

    /// As [`Object::present`].
    pub async fn present(&self, range: Range<u64>) -> Vec<Range<u64>> {
        self.with(move |object| object.present(range)).await
    }

    /// As [`Object::missing`].
    pub async fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        self.with(move |object| object.missing(range)).await
    }

    /// As [`Object::fetch`], with a source that is awaited: `get` is given the bytes that are wanted and brings exactly as many. It is polled by the caller's task. Bytes that somebody else is fetching,
    /// another task or a thread, are waited for instead.
    ///
    /// When the future is dropped, others who want the same bytes are not kept waiting: one of them fetches them.
    ///
    /// # Errors
    /// As there; [`FetchError::Length`] when `get` brought another number of bytes.
    pub async fn fetch<B, E, F>(
        &self,
        range: Range<u64>,
        get: impl FnMut(Range<u64>) -> F,
    ) -> Result<(), FetchError<E>>
    where
        B: AsRef<[u8]> + Send + 'static,
        F: Future<Output = Result<B, E>>,
    {
        fetch(&self.0, range, get, Ticket::fill).await
    }

    /// Reads, and has `get` bring what is missing as [`AsyncObject::fetch`] does. Gives how many bytes of the buffer lie before the object's end, and the buffer.
    ///
    /// # Errors
    /// As [`AsyncObject::fetch`] and [`Object::read`].
    pub async fn read_through<B, S, E, F>(
        &self,
        offset: u64,
        buf: B,
        get: impl FnMut(Range<u64>) -> F,
    ) -> (Result<usize, FetchError<E>>, B)
    where
        B: AsMut<[u8]> + Send + 'static,
        S: AsRef<[u8]> + Send + 'static,
        F: Future<Output = Result<S, E>>,
    {
        read_through(&self.0, offset, buf, get, Ticket::fill).await
    }
}

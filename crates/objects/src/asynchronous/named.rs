//! [`AsyncNamedObject`]: an object of a store, for tasks.

use super::fetch::{fetch, read_through};
use super::object::AsyncObject;
use crate::fetch::Ticket;
use crate::store::error::{NamedError, NamedFetchError};
use crate::store::named::NamedObject;
use blocking::unblock;
use std::ops::{Deref, Range};

/// A [`NamedObject`] for programs with tasks, as [`AsyncObject`] is an object; clones are the same object.
#[derive(Clone, Debug)]
pub struct AsyncNamedObject {
    named: NamedObject,
    object: AsyncObject,
}

impl From<NamedObject> for AsyncNamedObject {
    fn from(named: NamedObject) -> Self {
        Self { object: AsyncObject::of_named(named.clone()), named }
    }
}

impl Deref for AsyncNamedObject {
    type Target = AsyncObject;

    fn deref(&self) -> &AsyncObject {
        &self.object
    }
}

impl AsyncNamedObject {
    /// The object, for threads that may wait.
    pub fn get_ref(&self) -> &NamedObject {
        &self.named
    }

    /// Does something with the object on a thread that may wait.
    pub async fn with<T: Send + 'static>(&self, work: impl FnOnce(&NamedObject) -> T + Send + 'static) -> T {
        let named = self.named.clone();
        unblock(move || work(&named)).await
    }

    /// As [`NamedObject::version`].
    pub fn version(&self) -> u64 {
        self.named.version()
    }

    /// As [`NamedObject::key`].
    pub fn key(&self) -> &[u8] {
        self.named.key()
    }

    /// As [`NamedObject::is_gone`].
    pub fn is_gone(&self) -> bool {
        self.named.is_gone()
    }

    /// As [`NamedObject::aux`].
    pub async fn aux(&self) -> Vec<u8> {
        self.with(NamedObject::aux).await
    }

    /// As [`NamedObject::set_aux`].
    ///
    /// # Errors
    /// As there.
    pub async fn set_aux(&self, aux: impl Into<Vec<u8>>) -> Result<(), NamedError> {
        let aux = aux.into();
        self.with(move |named| named.set_aux(&aux)).await
    }

    /// As [`NamedObject::pin`].
    ///
    /// # Errors
    /// As there.
    pub async fn pin(&self) -> Result<(), NamedError> {
        self.with(NamedObject::pin).await
    }

    /// As [`NamedObject::unpin`].
    pub async fn unpin(&self) {
        self.with(NamedObject::unpin).await;
    }

    /// As [`NamedObject::write`]. The bytes come back.
    ///
    /// # Errors
    /// As there.
    pub async fn write<B: AsRef<[u8]> + Send + 'static>(
        &self,
        offset: u64,
        bytes: B,
    ) -> (Result<(), NamedError>, B) {
        self.with(move |named| (named.write(offset, bytes.as_ref()), bytes)).await
    }

    /// As [`NamedObject::write_dirty`]. The bytes come back.
    ///
    /// # Errors
    /// As there.
    pub async fn write_dirty<B: AsRef<[u8]> + Send + 'static>(
        &self,
        offset: u64,
        bytes: B,
    ) -> (Result<(), NamedError>, B) {
        self.with(move |named| (named.write_dirty(offset, bytes.as_ref()), bytes)).await
    }

    /// As [`AsyncObject::fetch`], with room made as [`NamedObject::write`] does, once `get` has brought what is to be kept.
    ///
    /// # Errors
    /// As there, and what keeps room from being made.
    pub async fn fetch<B, E, F>(
        &self,
        range: Range<u64>,
        get: impl FnMut(Range<u64>) -> F,
    ) -> Result<(), NamedFetchError<E>>
    where
        B: AsRef<[u8]> + Send + 'static,
        F: Future<Output = Result<B, E>>,
    {
        fetch(&self.named, range, get, keep).await
    }

    /// As [`AsyncObject::read_through`], with room made as [`AsyncNamedObject::fetch`] does.
    ///
    /// # Errors
    /// As there, and what keeps room from being made.
    pub async fn read_through<B, S, E, F>(
        &self,
        offset: u64,
        buf: B,
        get: impl FnMut(Range<u64>) -> F,
    ) -> (Result<usize, NamedFetchError<E>>, B)
    where
        B: AsMut<[u8]> + Send + 'static,
        S: AsRef<[u8]> + Send + 'static,
        F: Future<Output = Result<S, E>>,
    {
        read_through(&self.named, offset, buf, get, keep).await
    }
}

/// Not promised any room while the source is waited for: others may need it meanwhile.
fn keep(ticket: &Ticket<NamedObject>, bytes: &[u8]) -> Result<(), NamedError> {
    let _room = ticket.object().room_for(ticket.range())?;
    Ok(ticket.fill(bytes)?)
}

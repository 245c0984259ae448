//! [`AsyncStore`]: a store for tasks.

use super::named::AsyncNamedObject;
use crate::store::error::NamedError;
use crate::store::list::Listed;
use crate::store::{Store, StoreConfig};
use blocking::unblock;
use std::path::PathBuf;
use std::sync::Arc;
use vswap_core::ByteCount;

/// A [`Store`] for programs with tasks; clones are the same store. What has no form of its own here is done by [`AsyncStore::with`].
///
/// Calls are done, and may be cancelled, as those of [`AsyncObject`](crate::AsyncObject). The last user of a store closes it, which waits for its disk: [`AsyncStore::close`] does that on another
/// thread.
///
/// ```
/// use futures_lite::future::{block_on, zip};
/// use std::ops::Range;
/// use vswap_objects::{AsyncStore, StoreConfig};
///
/// # let dir = tempfile::tempdir_in("/var/tmp")?;
/// # let dir = dir.path();
/// // With a client of the runtime that the program has.
/// async fn ask_the_server(wanted: Range<u64>) -> std::io::Result<Vec<u8>> {
///     Ok(vec![b'.'; (wanted.end - wanted.start) as usize])
/// }
/// block_on(async {
///     let store = AsyncStore::create(dir, 64 << 20, StoreConfig::default()).await?;
///     let photo = store.object("server/share", "photo.jpg", 3).await?;
///     photo.set_len(10_000).await?;
///     photo.write(2, b"here").await.0?;
///     // The server is asked once for what both of them want.
///     let first = photo.read_through(0, vec![0; 8], ask_the_server);
///     let second = photo.read_through(4, vec![0; 8], ask_the_server);
///     let ((first, bytes), (second, others)) = zip(first, second).await;
///     assert_eq!((first?, bytes.as_slice()), (8, b"..here..".as_slice()));
///     assert_eq!((second?, others.as_slice()), (8, b"re......".as_slice()));
///     store.sync().await?;
///     drop(photo);
///     store.close().await;
///
///     let store = AsyncStore::open(dir, StoreConfig::default()).await?;
///     let photo = store.find("server/share", "photo.jpg").await?.expect("it was synced");
///     assert_eq!(photo.missing(0..u64::MAX).await, [12..10_000]);
///     Ok::<_, Box<dyn std::error::Error>>(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct AsyncStore(Arc<Store>);

impl From<Arc<Store>> for AsyncStore {
    fn from(store: Arc<Store>) -> Self {
        Self(store)
    }
}

impl AsyncStore {
    /// As [`Store::create`].
    ///
    /// # Errors
    /// As there.
    pub async fn create(
        dir: impl Into<PathBuf>,
        bytes: u64,
        config: StoreConfig,
    ) -> Result<Self, NamedError> {
        let dir = dir.into();
        unblock(move || Store::create(&dir, bytes, &config)).await.map(Self)
    }

    /// As [`Store::open`].
    ///
    /// # Errors
    /// As there.
    pub async fn open(dir: impl Into<PathBuf>, config: StoreConfig) -> Result<Self, NamedError> {
        let dir = dir.into();
        unblock(move || Store::open(&dir, &config)).await.map(Self)
    }

    /// The store, for threads that may wait.
    pub fn get_ref(&self) -> &Arc<Store> {
        &self.0
    }

    /// Does something with the store on a thread that may wait.
    pub async fn with<T: Send + 'static>(&self, work: impl FnOnce(&Arc<Store>) -> T + Send + 'static) -> T {
        let store = Arc::clone(&self.0);
        unblock(move || work(&store)).await
    }

    /// As [`Store::object`].
    ///
    /// # Errors
    /// As there.
    pub async fn object(
        &self,
        volume: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
        version: u64,
    ) -> Result<AsyncNamedObject, NamedError> {
        let (volume, key) = (volume.into(), key.into());
        self.with(move |store| store.object(&volume, &key, version)).await.map(Into::into)
    }

    /// As [`Store::find`].
    ///
    /// # Errors
    /// As there.
    pub async fn find(
        &self,
        volume: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Result<Option<AsyncNamedObject>, NamedError> {
        let (volume, key) = (volume.into(), key.into());
        let found = self.with(move |store| store.find(&volume, &key)).await?;
        Ok(found.map(Into::into))
    }

    /// As [`Store::remove`].
    ///
    /// # Errors
    /// As there.
    pub async fn remove(
        &self,
        volume: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Result<bool, NamedError> {
        let (volume, key) = (volume.into(), key.into());
        self.with(move |store| store.remove(&volume, &key)).await
    }

    /// As [`Store::invalidate`].
    ///
    /// # Errors
    /// As there.
    pub async fn invalidate(
        &self,
        volume: impl Into<Vec<u8>>,
        prefix: impl Into<Vec<u8>>,
    ) -> Result<(), NamedError> {
        let (volume, prefix) = (volume.into(), prefix.into());
        self.with(move |store| store.invalidate(&volume, &prefix)).await
    }

    /// As [`Store::list`]; `each` is called by the thread that may wait.
    ///
    /// # Errors
    /// As there.
    pub async fn list(
        &self,
        volume: impl Into<Vec<u8>>,
        prefix: impl Into<Vec<u8>>,
        each: impl FnMut(Listed) -> bool + Send + 'static,
    ) -> Result<(), NamedError> {
        let (volume, prefix) = (volume.into(), prefix.into());
        self.with(move |store| store.list(&volume, &prefix, each)).await
    }

    /// As [`Store::volumes`].
    pub async fn volumes(&self) -> Vec<Vec<u8>> {
        self.with(|store| store.volumes()).await
    }

    /// As [`Store::sync`]. If the future is dropped, it may come to its commit or not.
    ///
    /// # Errors
    /// As there.
    pub async fn sync(&self) -> Result<(), NamedError> {
        self.with(|store| store.sync()).await
    }

    /// As [`Store::reclaim`].
    ///
    /// # Errors
    /// As there.
    pub async fn reclaim(&self, bytes: ByteCount) -> Result<ByteCount, NamedError> {
        self.with(move |store| store.reclaim(bytes)).await
    }

    /// Lets go of the store, without a sync. If nobody else has it or an object of it, it is closed once this returns, and can be opened again.
    pub async fn close(self) {
        unblock(move || drop(self)).await;
    }
}

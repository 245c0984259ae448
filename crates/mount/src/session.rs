//! [`serve`]: a mount from its beginning to its end.

use crate::attr::Attr;
use crate::error::MountError;
use crate::kernel::Serve;
use crate::notices::notices;
use crate::plain::{Plains, TURN as PLAIN_TURN, look_after_plains, make_plains};
use crate::source::Source;
use crate::view::View;
use fuser::{Config, MountOption, Session, SessionACL};
use rustix::fs::{AtFlags, CWD, StatxFlags};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vswap_objects::{NamedError, Store};
use vswap_sys::signal::Signals;

/// How often it is looked whether a signal has arrived, and how often the store is synced.
const TURN: Duration = Duration::from_millis(100);
/// Threads that answer the kernel: so many operations of the source may be under way at once. Each has a buffer for the longest of all requests (16 MiB), of which no more than 1 MiB is ever touched.
const THREADS: usize = 48;
const SYNC: Duration = Duration::from_secs(5);
/// What ends a mount: a hang-up, Ctrl-C, and what `kill` sends.
const ENDS: [i32; 3] = [1, vswap_sys::signal::SIGINT, 15];
/// The key of what is known of the source as a whole.
pub const ABOUT: &[u8] = b"m";

/// What is to be mounted.
#[derive(Clone, Debug)]
pub struct MountConfig {
    /// The directory that is shown.
    pub source: PathBuf,
    /// Where.
    pub mountpoint: PathBuf,
    /// The key of what is kept of it; without one, its path.
    pub volume: Option<Vec<u8>>,
    /// How long names and attributes are believed without asking the source.
    pub ttl: Duration,
    /// Nothing can be changed through it.
    pub read_only: bool,
    /// Bytes of plain copies beside the store, of what is read often, which the kernel reads by itself: only where nothing can be changed, and only as root. Without a figure, a quarter of the store's.
    pub plain_copies: Option<u64>,
    /// Other users may use it, as far as modes let them.
    pub allow_other: bool,
}

/// Shows a directory through a store until it is unmounted, or SIGINT, SIGTERM or SIGHUP arrives; then it is unmounted and the store is synced. For a program that does nothing else: it
/// takes these signals, and the mask of modes of what is made is 0 from then on. `ready` is called once it is mounted, and `say` with what went wrong meanwhile but stops nothing.
///
/// # Errors
/// When it cannot be mounted, or the store cannot be synced at the end.
pub fn serve(
    config: &MountConfig,
    store: Arc<Store>,
    store_dir: &Path,
    ready: impl FnOnce(),
    mut say: impl FnMut(String),
) -> Result<(), MountError> {
    let source = std::fs::canonicalize(&config.source).or_else(|_| std::path::absolute(&config.source));
    let source = source.map_err(|error| MountError::io(&config.source, "find", error))?;
    let point = std::fs::canonicalize(&config.mountpoint);
    let point = point.map_err(|error| MountError::io(&config.mountpoint, "find", error))?;
    let store_path = std::fs::canonicalize(store_dir).unwrap_or_else(|_| store_dir.to_owned());
    apart(&source, &point)?;
    if store_path.starts_with(&point) {
        return Err(MountError::Hidden { store: store_path, point });
    }
    let volume = config.volume.clone().unwrap_or_else(|| source.as_os_str().as_encoded_bytes().to_vec());
    // Before any thread is started, so that none of them gets one.
    let signals = Signals::take(&ENDS).map_err(|error| MountError::io(&point, "take signals for", error))?;
    rustix::process::umask(rustix::fs::Mode::empty());
    more_descriptors();

    let (notices, of_stale, of_names) = notices();
    let source = Source::new(source, was_mounted(&store, &volume)?);
    let root = root_of(&source, &store, &volume)?;
    let (plains, wanted) = Plains::new(&store_path, room_for_plains(config, &store));
    let view = Arc::new(View::new(source, root, store, volume, config.ttl, notices, plains));
    view.remember_mounted()?;
    let options = options(config, view.source.path());
    let below = device_of(&point);
    let session = Session::new(Serve { view: Arc::clone(&view) }, &point, &options);
    let mut session = session.map_err(|error| MountError::Mount { point: point.clone(), error })?;
    let device = device_of(&point);
    // Somebody may have unmounted it at once.
    read_ahead(device.filter(|_| device != below));
    let mut unmounter = session.unmount_callable();
    let (one, other, names) = (session.notifier(), session.notifier(), Arc::downgrade(&view));
    std::thread::spawn(move || of_stale.tell(&one));
    std::thread::spawn(move || of_names.tell(&other, &names));
    if view.plains.are_on() {
        let (makes, looks) = (Arc::downgrade(&view), Arc::downgrade(&view));
        std::thread::spawn(move || make_plains(&makes, &wanted));
        std::thread::spawn(move || look_after_plains(&looks));
    }
    let ended = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&ended);
    let served = std::thread::spawn(move || {
        let served = session.run();
        // Release: the one who waits sees what this thread did before.
        ends.store(true, Ordering::Release);
        served
    });
    ready();
    let (mut synced, mut said) = (Instant::now(), String::new());
    while !ended.load(Ordering::Acquire) {
        std::thread::sleep(TURN);
        if signals.next().is_some() {
            return end(&view, &point, device, &mut unmounter);
        }
        if synced.elapsed() >= SYNC {
            let failed = view.sync_if_touched().err().map(|error| error.to_string()).unwrap_or_default();
            if !failed.is_empty() {
                view.was_full();
                if failed != said {
                    say(format!("what is kept of {} is not synced: {failed}", view.source.path().display()));
                }
            }
            said = failed;
            view.store.engine().maintain(false);
            view.snapshots.sweep();
            synced = Instant::now();
        }
    }
    let served =
        served.join().unwrap_or_else(|_| Err(std::io::Error::other("a thread that answers has panicked")));
    view.sync()?;
    served.map_err(|error| MountError::Serve { point, error })
}

fn room_for_plains(config: &MountConfig, store: &Store) -> u64 {
    let store_bytes: u64 = store.engine().tiers().iter().map(|tier| tier.size.get()).sum();
    // Who wants each change to be seen at once is answered by us.
    if config.read_only && config.ttl >= PLAIN_TURN {
        config.plain_copies.unwrap_or(store_bytes / 4)
    } else {
        0
    }
}

/// A signal has arrived.
fn end(
    view: &View,
    point: &Path,
    device: Option<(u32, u32)>,
    unmounter: &mut fuser::SessionUnmounter,
) -> Result<(), MountError> {
    // It may have been unmounted already, and something else be there now.
    let is_ours = || device.is_some() && device_of(point) == device;
    let there = is_ours() && unmounter.unmount().is_err() && is_ours();
    let busy = there.then(|| rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH));
    view.sync()?;
    match busy {
        Some(Err(error)) => Err(MountError::io(point, "unmount", error.into())),
        // Programs that still have something open find it gone when this one ends.
        _ => Ok(()),
    }
}

/// Which file system is mounted there. From what the kernel knows itself: nobody is asked.
fn device_of(point: &Path) -> Option<(u32, u32)> {
    let stat = rustix::fs::statx(CWD, point, AtFlags::STATX_DONT_SYNC, StatxFlags::INO).ok()?;
    Some((stat.stx_dev_major, stat.stx_dev_minor))
}

/// The kernel reads so far ahead of who reads in order; 128 KiB, as it would, keep one of our threads busy, and the device hardly.
const READ_AHEAD_KIB: u32 = 1024;

fn read_ahead(device: Option<(u32, u32)>) {
    if let Some((major, minor)) = device {
        // Only root may, and it is slower only.
        let _ = std::fs::write(
            format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"),
            READ_AHEAD_KIB.to_string(),
        );
    }
}

/// Neither may be within the other: the source would be asked for by way of itself.
fn apart(source: &Path, point: &Path) -> Result<(), MountError> {
    if source.starts_with(point) || point.starts_with(source) {
        return Err(MountError::Within { directory: source.to_owned(), point: point.to_owned() });
    }
    Ok(())
}

fn options(config: &MountConfig, source: &Path) -> Config {
    // A comma would end the option. Not the bare path: `umount` takes a path for the name of what is mounted as well, and would unmount this for the source.
    let name = format!("vswap:{}", source.to_string_lossy().replace([',', '\\'], "_"));
    let mount_options = vec![
        MountOption::FSName(name),
        MountOption::Subtype("vswap".to_owned()),
        MountOption::DefaultPermissions,
        if config.read_only { MountOption::RO } else { MountOption::RW },
    ];
    let mut options = Config::default();
    options.mount_options = mount_options;
    options.n_threads = Some(THREADS);
    options.acl = if config.allow_other { SessionACL::All } else { SessionACL::Owner };
    options
}

/// A program may have many files open, and each is one of ours.
fn more_descriptors() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Otherwise it is as many as before.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, most);
}

fn was_mounted(store: &Arc<Store>, volume: &[u8]) -> Result<bool, MountError> {
    Ok(store.find(volume, ABOUT)?.is_some_and(|about| about.aux() == [1]))
}

/// The source's directory; while it is gone, as it was seen last.
fn root_of(source: &Source, store: &Arc<Store>, volume: &[u8]) -> Result<Attr, MountError> {
    let found = source.root().and_then(|root| {
        let fd = root.walk(b"")?;
        root.attr(fd)
    });
    let known = || {
        crate::listings::Listings::new(Arc::clone(store), volume.to_vec(), Duration::ZERO)
            .with(b"", |listing| listing.own)
    };
    match found {
        Ok(attr) => Ok(attr),
        Err(fault) => {
            known().ok_or_else(|| MountError::NoSource { path: source.path().to_owned(), fault: fault.raw() })
        }
    }
}

impl View {
    fn remember_mounted(&self) -> Result<(), NamedError> {
        if !self.source.is_mounted() {
            return Ok(());
        }
        self.store.object(&self.volume, ABOUT, 0)?.set_aux(&[1])
    }

    fn sync_if_touched(&self) -> Result<(), NamedError> {
        let listed = self.listings.write();
        // Relaxed: see `View::touch`.
        let touched = self.touched.swap(false, Ordering::Relaxed);
        if touched || !matches!(listed, Ok(false)) {
            self.remember_mounted()?;
            let synced = self.store.sync();
            if synced.is_err() {
                self.touch();
            }
            synced?;
        }
        listed.map(drop)
    }

    fn sync(&self) -> Result<(), NamedError> {
        self.touch();
        self.sync_if_touched()
    }
}

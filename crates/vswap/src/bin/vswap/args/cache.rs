//! Arguments of `vswap cache`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::table::{Column, TableArgs};
use super::tier_size;

pub(super) const CACHE_ABOUT: &str = "\
Makes a store of named objects in a directory, and looks at and changes what is in it. An object has a key in a volume (a server and share, a bucket, whatever has keys of its own), a version, bytes of which some may be missing, and auxiliary data. \
What a command changes is there after a crash or a power cut once it has ended.

One program at a time has a store open; while one has, these commands are refused.";

pub(super) const CACHE_MORE: &str = "\
Keys:
  Any bytes, up to 4096. In KEY, PREFIX and --volume, \\xNN stands for the byte of these two hexadecimal digits and \\\\ for a backslash; keys are shown in
  the same way, wherever they have blanks, control characters, backslashes or bytes that are not UTF-8.

Room:
  A store that is fuller than 95 % gives up what was written first and not read since, until it is no fuller than 90 %; so does a write that
  finds no room. What is pinned or dirty stays, and so do the names of objects until nothing of them is left. At most half of a store can be pinned.

Exit status:
  0    done
  1    refused or not there, and why
  125  bad usage

Examples:
  vswap cache init /var/cache/photos --size 20G
  vswap cache put /var/cache/photos 2026/beach.jpg beach.jpg --volume server/share
  vswap cache ls /var/cache/photos 2026/ --volume server/share
  vswap cache get /var/cache/photos 2026/beach.jpg --volume server/share > beach.jpg
  vswap cache pin /var/cache/photos 2026/beach.jpg --volume server/share
  vswap cache cull /var/cache/photos --size 2G
  vswap cache invalidate /var/cache/photos 2026/ --prefix --volume server/share
  vswap cache mount --source /mnt/nas/photos --store /var/cache/photos ~/photos
  vswap cache check /var/cache/photos";

/// `vswap cache`.
#[derive(Debug, Args)]
pub struct CacheArgs {
    /// What to do
    #[command(subcommand)]
    pub action: CacheAction,
}

/// Bytes of a key, as they are written on a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(pub Vec<u8>);

/// Reads a key, with its escapes.
pub fn key(words: OsString) -> Result<Key, String> {
    let (bytes, mut key) = (words.into_vec(), Vec::new());
    let mut rest = bytes.as_slice();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            key.push(*first);
            continue;
        }
        let digits = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        match rest {
            [b'\\', after @ ..] => (rest, ()) = (after, key.push(b'\\')),
            [b'x', high, low, after @ ..] if high.is_ascii_hexdigit() => {
                key.push(digits(&[*high, *low]).ok_or("\\x needs two hexadecimal digits")?);
                rest = after;
            }
            _ => return Err("a backslash stands before x and two hexadecimal digits, or another one".into()),
        }
    }
    Ok(Key(key))
}

fn key_parser() -> impl clap::builder::TypedValueParser<Value = Key> {
    use clap::builder::TypedValueParser;
    clap::builder::OsStringValueParser::new().try_map(key)
}

/// Which object.
#[derive(Debug, Args)]
pub struct ObjectArgs {
    /// The store's directory
    pub store: PathBuf,
    /// The object's key
    #[arg(value_parser = key_parser())]
    pub key: Key,
    /// The volume in which it is
    #[arg(long, value_name = "KEY", value_parser = key_parser(), default_value = "")]
    pub volume: Key,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum CacheAction {
    /// Make a store in a directory
    Init {
        /// The directory; it is made if it is not there
        store: PathBuf,
        /// What its objects may take, packed; room is taken only as it is written
        #[arg(long, value_name = "SIZE", value_parser = tier_size)]
        size: u64,
    },
    /// List objects
    Ls {
        /// The store's directory
        store: PathBuf,
        /// Only objects whose keys begin so
        #[arg(value_parser = key_parser(), default_value = "")]
        prefix: Key,
        /// Only this volume's
        #[arg(long, value_name = "KEY", value_parser = key_parser())]
        volume: Option<Key>,
        /// Print JSON instead of a table; sizes are bytes
        #[arg(long)]
        json: bool,
        /// The table
        #[command(flatten)]
        table: TableArgs<ObjectColumn>,
    },
    /// Show what is known of an object: which bytes are there, and where they are
    Stat {
        /// Which
        #[command(flatten)]
        object: ObjectArgs,
        /// Print JSON; sizes are bytes
        #[arg(long)]
        json: bool,
    },
    /// Store an object
    Put {
        /// Which
        #[command(flatten)]
        object: ObjectArgs,
        /// What it is to hold; without it, standard input
        file: Option<PathBuf>,
        /// Its version: a newer one takes the place of an older one, and an older one is refused
        #[arg(long, value_name = "N", default_value_t = 0)]
        version: u64,
        /// A file with what is to be kept beside it
        #[arg(long, value_name = "FILE")]
        aux: Option<PathBuf>,
    },
    /// Write an object to standard output; refused if some of it is missing
    Get {
        /// Which
        #[command(flatten)]
        object: ObjectArgs,
    },
    /// Keep an object, or all whose keys begin so, whatever room is wanted
    Pin {
        /// Which
        #[command(flatten)]
        object: ObjectArgs,
        /// KEY is how keys begin
        #[arg(long)]
        prefix: bool,
        /// KEY is a file or a directory that `vswap cache mount` shows, by its path below the directory that is the volume: with all below it, and what leads there
        #[cfg(feature = "mount")]
        #[arg(long, conflicts_with = "prefix")]
        tree: bool,
    },
    /// Let an object, or all whose keys begin so, be given up like any other
    Unpin {
        /// Which
        #[command(flatten)]
        object: ObjectArgs,
        /// KEY is how keys begin
        #[arg(long)]
        prefix: bool,
        /// KEY is a file or a directory that `vswap cache mount` shows, by its path below the directory that is the volume: with all below it; what leads there stays pinned, since it leads to others too
        #[cfg(feature = "mount")]
        #[arg(long, conflicts_with = "prefix")]
        tree: bool,
    },
    /// Give up what is neither pinned nor dirty, the oldest first
    Cull {
        /// The store's directory
        store: PathBuf,
        /// Until so much is free that was not; without it, all of it
        #[arg(long, value_name = "SIZE", value_parser = crate::size::parse)]
        size: Option<u64>,
        /// Print JSON; sizes are bytes
        #[arg(long)]
        json: bool,
    },
    /// End an object, or all whose keys begin so
    Invalidate {
        /// Which
        #[command(flatten)]
        object: ObjectArgs,
        /// KEY is how keys begin; an empty one ends all of the volume
        #[arg(long)]
        prefix: bool,
    },
    /// Show what the store holds and has room for
    Df {
        /// The store's directory
        store: PathBuf,
        /// Print JSON; sizes are bytes
        #[arg(long)]
        json: bool,
        /// Print sizes in bytes, as plain numbers
        #[arg(long, short)]
        bytes: bool,
    },
    /// Show a slow directory through a store: what was read once is there, also when the directory is not
    #[cfg(feature = "mount")]
    #[command(long_about = MOUNT_ABOUT, after_long_help = MOUNT_MORE)]
    Mount(MountArgs),
    /// Read everything, and name what is damaged
    Check {
        /// The store's directory
        store: PathBuf,
        /// End the objects of which something cannot be read
        #[arg(long)]
        repair: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[cfg(feature = "mount")]
const MOUNT_ABOUT: &str = "\
Shows the directory DIR at MOUNTPOINT, as a FUSE file system. Of what is read there the store keeps the blocks that were asked for and some behind them, and names and attributes; what is kept is not asked of DIR again as long as the \
file has the same size, times of change and inode. What is written goes to DIR first and then into the store, and every other operation is passed on, so DIR has everything at once.

While DIR does not answer (its server or its disk is gone, or it is not mounted) what is in the store can be read: directories that were listed, and the parts of files that were read. Everything else fails as DIR does. When it comes \
back it is shown again as it is then.

The command stays until MOUNTPOINT is unmounted (`umount`, `fusermount3 -u`) or it is ended by SIGINT, SIGTERM or SIGHUP, which unmounts. Nobody else can use the store meanwhile. It is synced every five seconds and at the end; a crash \
loses of it what came since then, and nothing of DIR.";

#[cfg(feature = "mount")]
const MOUNT_MORE: &str = "\
Limits:
  - Others' changes of DIR are seen after --ttl seconds, by who opens or reads a file; by who has mapped it, when it is opened again. Names that others add or remove in a directory of a network file system or of FUSE are seen by the directory's times, at the latest after a minute.
  - Locks hold among the programs that use MOUNTPOINT, and are not passed on to DIR.
  - Two who write one file at the same moment, one here and one in DIR itself, are not kept apart.
  - Access is decided by owner and mode; access control lists are not looked at here.
  - A store that is full of what is pinned keeps that, and the rest is read from DIR each time.
  - A rename takes along up to 64 MiB of what is kept.

Exit status:
  0    unmounted
  1    it could not be mounted, or the store failed
  125  bad usage

Examples:
  vswap cache init /var/cache/photos --size 20G
  vswap cache mount --source /mnt/nas/photos --store /var/cache/photos ~/photos
  umount ~/photos";

/// `vswap cache mount`.
#[cfg(feature = "mount")]
#[derive(Debug, Args)]
pub struct MountArgs {
    /// The directory that is shown
    #[arg(long, value_name = "DIR")]
    pub source: PathBuf,
    /// The store's directory
    #[arg(long, value_name = "STORE")]
    pub store: PathBuf,
    /// Where it is shown: a directory, not within DIR, nor DIR within it
    pub mountpoint: PathBuf,
    /// The volume of the store in which it is kept [default: DIR's path without symbolic links]
    #[arg(long, value_name = "KEY", value_parser = key_parser())]
    pub volume: Option<Key>,
    /// How long names and attributes are believed without asking DIR; 0 asks each time
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub ttl: f64,
    /// Let nothing be changed at MOUNTPOINT
    #[arg(long)]
    pub read_only: bool,
    /// With --read-only and as root: bytes beside the store for plain copies of files that are read again, which the kernel then reads by itself; 0 for none [default: a quarter of the store]
    ///
    /// Of files of 1 MiB and more that are kept whole and were not written to for an hour. Who has one open while it changes sees that some seconds after its last change.
    #[arg(long, value_name = "SIZE", value_parser = crate::size::parse, requires = "read_only")]
    pub plain_copies: Option<u64>,
    /// Let other users use it too, as far as owners and modes allow
    ///
    /// Who is not root needs `user_allow_other` in /etc/fuse.conf for it.
    #[arg(long)]
    pub allow_other: bool,
    /// Stay in the foreground; it always does
    #[arg(long)]
    pub foreground: bool,
}

#[cfg(feature = "mount")]
fn seconds(words: &str) -> Result<f64, String> {
    /// A day.
    const MOST: f64 = 86_400.0;
    match words.parse() {
        Ok(seconds) if (0.0..=MOST).contains(&seconds) => Ok(seconds),
        _ => Err("seconds, from 0 to 86400, such as 1 or 0.5".into()),
    }
}

/// Columns of `vswap cache ls`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum ObjectColumn {
    /// The volume's key
    Volume,
    /// The object's key
    Key,
    /// Its version
    Version,
    /// Its length, what is missing included
    Size,
    /// dirty: something of it is to be stored elsewhere; pinned: nothing of it is given up; damaged: it can be ended only; clean: it may be given up
    State,
}

impl Column for ObjectColumn {
    fn is_usual(self) -> bool {
        true
    }

    fn is_figure(self) -> bool {
        matches!(self, Self::Version | Self::Size)
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, key};

    #[test]
    fn a_key_has_any_bytes_by_its_escapes() {
        let reads = |words: &str| key(words.into());
        assert_eq!(reads(r"a\x00\xFF\\b/c d"), Ok(Key(b"a\0\xff\\b/c d".to_vec())));
        assert_eq!(reads(""), Ok(Key(Vec::new())));
        for wrong in [r"\", r"\x", r"\x1", r"\xg0", r"\x+1", r"\n"] {
            assert!(reads(wrong).is_err(), "{wrong}");
        }
    }
}

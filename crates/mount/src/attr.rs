//! [`Attr`]: what `stat` says of a file, as it is kept in the store and as the kernel is told.

use crate::stamp::Stamp;
use fuser::{FileAttr, FileType, INodeNo};
use rustix::fs::Stat;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Which file it is: the number of its device, 0 for that of the source's directory (it has another one after each mount), and of its inode.
pub type Identity = (u64, u64);

/// Seconds since 1970 and nanoseconds.
pub type Time = (i64, u32);

/// Attributes of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Attr {
    pub identity: Identity,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    pub blksize: u32,
    pub blocks: u64,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
}

impl Attr {
    /// Of what is on this device, if it is that of the source's directory.
    pub fn new(stat: &Stat, root: u64) -> Self {
        let device = if stat.st_dev == root { 0 } else { stat.st_dev };
        Self {
            identity: (device, stat.st_ino),
            mode: stat.st_mode,
            nlink: stat.st_nlink as u32,
            uid: stat.st_uid,
            gid: stat.st_gid,
            rdev: stat.st_rdev,
            size: stat.st_size as u64,
            blksize: stat.st_blksize as u32,
            blocks: stat.st_blocks as u64,
            atime: (stat.st_atime, stat.st_atime_nsec as u32),
            mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
            ctime: (stat.st_ctime, stat.st_ctime_nsec as u32),
        }
    }

    pub fn stamp(&self) -> Stamp {
        let Self { identity, size, mtime, ctime, .. } = *self;
        Stamp { identity, size, mtime, ctime }
    }

    /// The same but for the time at which somebody looked.
    pub fn agrees(&self, other: &Self) -> bool {
        Self { atime: other.atime, ..*self } == *other
    }

    pub fn kind(&self) -> FileType {
        kind(self.mode)
    }

    pub fn is_file(&self) -> bool {
        self.kind() == FileType::RegularFile
    }

    pub fn is_dir(&self) -> bool {
        self.kind() == FileType::Directory
    }

    /// As the kernel is told, of the inode that it knows by this number.
    pub fn told(&self, node: u64) -> FileAttr {
        FileAttr {
            ino: INodeNo(node),
            size: self.size,
            blocks: self.blocks,
            atime: system_time(self.atime),
            mtime: system_time(self.mtime),
            ctime: system_time(self.ctime),
            crtime: UNIX_EPOCH,
            kind: self.kind(),
            perm: (self.mode & 0o7777) as u16,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: device(self.rdev),
            blksize: self.blksize,
            flags: 0,
        }
    }
}

/// Attributes of what is not there.
pub fn nothing() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

pub fn kind(mode: u32) -> FileType {
    match rustix::fs::FileType::from_raw_mode(mode) {
        rustix::fs::FileType::Directory => FileType::Directory,
        rustix::fs::FileType::Symlink => FileType::Symlink,
        rustix::fs::FileType::Fifo => FileType::NamedPipe,
        rustix::fs::FileType::Socket => FileType::Socket,
        rustix::fs::FileType::CharacterDevice => FileType::CharDevice,
        rustix::fs::FileType::BlockDevice => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

pub fn system_time((seconds, nanoseconds): Time) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let whole = if seconds < 0 { UNIX_EPOCH - whole } else { UNIX_EPOCH + whole };
    whole + Duration::from_nanos(nanoseconds.into())
}

pub fn time(time: SystemTime) -> Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (after.as_secs() as i64, after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            match before.subsec_nanos() {
                0 => (-(before.as_secs() as i64), 0),
                nanoseconds => (-(before.as_secs() as i64) - 1, 1_000_000_000 - nanoseconds),
            }
        }
    }
}

/// A device's number as FUSE has it: `new_encode_dev` of the kernel.
fn device(device: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The way back.
pub fn device_told(device: u32) -> u64 {
    rustix::fs::makedev((device & 0xf_ff00) >> 8, (device & 0xff) | ((device >> 12) & 0xf_ff00))
}

#[cfg(test)]
mod tests {
    use super::{device, device_told, system_time, time};

    #[test]
    fn times_and_devices_come_back_as_they_were() {
        for stamp in [(0, 0), (1, 999_999_999), (-1, 1), (-2, 0), (1 << 34, 5), (-(1 << 33), 999_999_999)] {
            assert_eq!(time(system_time(stamp)), stamp);
        }
        for (major, minor) in [(0, 0), (1, 3), (259, 70_000), (4095, 1 << 19)] {
            let number = rustix::fs::makedev(major, minor);
            assert_eq!(device_told(device(number)), number);
        }
    }
}

//! Operations on attributes, extended ones too.

use crate::attr::{Attr, time};
use crate::fault::{Fault, Res};
use crate::handles::Handle;
use crate::inodes::Inode;
use crate::source::magic;
use crate::view::View;
use fuser::TimeOrNow;
use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Asked for by the kernel at each write.
const CAPABILITIES: &str = "security.capability";

/// What is to be set; `None` stays.
#[derive(Debug, Default)]
pub struct Wanted {
    pub mode: Option<u32>,
    pub owner: (Option<u32>, Option<u32>),
    pub size: Option<u64>,
    pub times: (Option<TimeOrNow>, Option<TimeOrNow>),
}

impl View {
    /// As the source has them, and how long they are good.
    pub fn attributes(&self, inode: &Arc<Inode>) -> Res<(Attr, Duration)> {
        match self.find(inode) {
            Ok(found) => {
                self.note(inode, &found.attr, found.begun);
                Ok((found.attr, self.good_for(inode.identity, found.begun)))
            }
            Err(fault) if fault.is_gone() => Ok((inode.attr(), self.ttl)),
            Err(fault) => Err(fault),
        }
    }

    pub fn set_attributes(&self, inode: &Arc<Inode>, handle: Option<&Handle>, wanted: &Wanted) -> Res<Attr> {
        if let Some(size) = wanted.size {
            self.truncate(inode, handle, size)?;
        }
        let changing = self.changes.begin(inode.identity);
        if wanted.mode.is_some() || wanted.owner != (None, None) {
            // This program may not open it any more then.
            self.open_all(inode);
        }
        let look = || Ok(self.find(inode)?.attr);
        self.change(inode, false, look, || self.set_others(inode, wanted), |(), _, _, _| Ok(()))?;
        drop(changing);
        let found = self.find(inode)?;
        self.note(inode, &found.attr, found.begun);
        Ok(found.attr)
    }

    fn set_others(&self, inode: &Inode, wanted: &Wanted) -> Res<()> {
        let fd = self.find(inode)?.fd;
        if let (owner, group) = wanted.owner
            && (owner.is_some() || group.is_some())
        {
            let (owner, group) = (owner.map(Uid::from_raw), group.map(Gid::from_raw));
            rustix::fs::chownat(&fd, "", owner, group, AtFlags::EMPTY_PATH)?;
        }
        // After the owner, whose change takes some of these bits away.
        if let Some(mode) = wanted.mode {
            rustix::fs::chmod(magic(&fd), Mode::from_raw_mode(mode & 0o7777))?;
        }
        if wanted.times.0.is_some() || wanted.times.1.is_some() {
            let times =
                Timestamps { last_access: spec(wanted.times.0), last_modification: spec(wanted.times.1) };
            rustix::fs::utimensat(CWD, magic(&fd), &times, AtFlags::empty())?;
        }
        Ok(())
    }

    pub fn xattr(&self, inode: &Inode, name: &OsStr) -> Res<Vec<u8>> {
        let known = inode.no_capabilities.lock().is_some_and(|since| since.elapsed() < self.ttl);
        if known && name == CAPABILITIES {
            return Err(Errno::NODATA.into());
        }
        let fd = self.find(inode).map_err(unsupported)?.fd;
        let got = whole(|buf| rustix::fs::getxattr(magic(&fd), name, spare_capacity(buf)));
        if name == CAPABILITIES && got == Err(Fault::Says(Errno::NODATA)) {
            *inode.no_capabilities.lock() = Some(Instant::now());
        }
        got
    }

    pub fn xattrs(&self, inode: &Inode) -> Res<Vec<u8>> {
        let fd = self.find(inode).map_err(unsupported)?.fd;
        whole(|buf| rustix::fs::listxattr(magic(&fd), spare_capacity(buf)))
    }

    /// Sets an extended attribute, or removes it.
    pub fn set_xattr(&self, inode: &Arc<Inode>, name: &OsStr, value: Option<&[u8]>, flags: i32) -> Res<()> {
        *inode.no_capabilities.lock() = None;
        let flags = XattrFlags::from_bits_retain(flags as u32);
        let act = || {
            let fd = self.find(inode)?.fd;
            match value {
                Some(value) => rustix::fs::setxattr(magic(&fd), name, value, flags)?,
                None => rustix::fs::removexattr(magic(&fd), name)?,
            }
            Ok(())
        };
        self.change(inode, false, || Ok(self.find(inode)?.attr), act, |(), _, _, _| Ok(()))
    }
}

/// Extended attributes are not kept: while the source is gone there are none to be had, which `ls` and others take for no error.
fn unsupported(fault: Fault) -> Fault {
    if fault.is_gone() { Fault::Says(Errno::OPNOTSUPP) } else { fault }
}

/// Reads into a buffer that is as long as it has to be.
fn whole(mut get: impl FnMut(&mut Vec<u8>) -> Result<usize, Errno>) -> Res<Vec<u8>> {
    let mut room = 256;
    loop {
        let mut buf = Vec::with_capacity(room);
        match get(&mut buf) {
            Ok(_) => return Ok(buf),
            // The longest that there are.
            Err(Errno::RANGE) if room < 64 << 10 => room *= 4,
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn spec(wanted: Option<TimeOrNow>) -> Timespec {
    match wanted {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Some(TimeOrNow::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Some(TimeOrNow::SpecificTime(at)) => {
            let (seconds, nanoseconds) = time(at);
            Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() }
        }
    }
}

//! Reads: what is kept, and what is fetched for it.

use crate::content::Content;
use crate::fault::{Fault, Res};
use crate::handles::Handle;
use crate::view::View;
use rustix::io::Errno;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use vswap_objects::{FetchError, NamedFetchError, ObjectError};

/// Fetches begin and end at multiples of it, as the pages of whoever maps the file.
const BLOCK: u64 = 4096;
/// How often a file that changes all the time is asked for before it is read past the store.
const TRIES: usize = 4;

/// Why bytes could not be fetched.
#[derive(Debug)]
enum NotFetched {
    /// The file has become another meanwhile.
    Changed,
    Fault(Fault),
}

impl From<Fault> for NotFetched {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl View {
    /// The bytes of a range, fewer at the file's end.
    pub fn read(&self, handle: &Handle, offset: u64, size: usize) -> Res<Vec<u8>> {
        let inode = &handle.inode;
        let ahead = handle.ahead(offset, size as u64);
        for _ in 0..TRIES {
            let Some(content) = self.content_to_read(inode, || self.attr_of(handle))? else { break };
            if handle.kept.as_ref().is_some_and(|kept| kept.stamp != content.stamp()) {
                // If it is another file by now, that says so; while nothing answers it is what is known of that name.
                match self.file(handle) {
                    Err(fault) if fault.is_gone() && handle.is_of(&content) => {}
                    file => drop(file?),
                }
            }
            match self.read_kept(handle, &content, offset, size, ahead) {
                Ok(bytes) => return Ok(bytes),
                Err(NotFetched::Changed) => {
                    self.changes.happened(inode.identity);
                    inode.state.lock().doubt();
                }
                Err(NotFetched::Fault(fault)) => return Err(fault),
            }
        }
        self.with_file(handle, |file| read_into(file, offset, size))
    }

    /// Bytes of what is kept, or that the source has of the same stamp.
    ///
    /// # Errors
    /// What the source says; `STALE` if its file has become another.
    pub fn read_of(&self, handle: &Handle, content: &Arc<Content>, offset: u64, size: usize) -> Res<Vec<u8>> {
        match self.read_kept(handle, content, offset, size, 0) {
            Ok(bytes) => Ok(bytes),
            Err(NotFetched::Fault(fault)) => Err(fault),
            Err(NotFetched::Changed) => Err(Errno::STALE.into()),
        }
    }

    fn read_kept(
        &self,
        handle: &Handle,
        content: &Arc<Content>,
        offset: u64,
        size: usize,
        mut ahead: u64,
    ) -> Result<Vec<u8>, NotFetched> {
        let object = &content.object;
        let mut bytes = vec![0; size];
        for _ in 0..TRIES {
            let read = match object.read(offset, &mut bytes) {
                Ok(read) => read,
                Err(ObjectError::Unreadable { offset, .. }) => {
                    // Damaged: it is fetched again.
                    let page = offset / BLOCK * BLOCK;
                    object.punch(page..page + BLOCK);
                    continue;
                }
                Err(_) => break,
            };
            let (Some(first), Some(last)) = (read.missing.first(), read.missing.last()) else {
                bytes.truncate(read.len);
                return Ok(bytes);
            };
            if !self.has_room() {
                break;
            }
            self.touch();
            let wanted = first.start / BLOCK * BLOCK..(last.end + ahead).next_multiple_of(BLOCK);
            match object.fetch(wanted, |at, buf| self.bring(handle, content, at, buf)) {
                Ok(()) => {}
                // What is read ahead may be what the source does not give.
                Err(NamedFetchError::Fetch(FetchError::Source(NotFetched::Fault(fault))))
                    if ahead > 0
                        && (fault.raw() == Errno::IO || self.may_have(content, first.start..last.end)) =>
                {
                    ahead = 0;
                }
                Err(NamedFetchError::Fetch(FetchError::Source(error))) => return Err(error),
                Err(_) => self.was_full(),
            }
        }
        self.read_past(handle, content, offset, size)
    }

    /// Whether a range is there after all.
    fn may_have(&self, content: &Content, range: Range<u64>) -> bool {
        content.object.missing(range).is_empty()
    }

    /// Fills a buffer from the source, if its file is still the one that the bytes are of.
    fn bring(&self, handle: &Handle, content: &Content, at: u64, buf: &mut [u8]) -> Result<(), NotFetched> {
        let bytes = self.with_file(handle, |file| read_into(file, at, buf.len()))?;
        if bytes.len() != buf.len() || self.attr_of(handle)?.stamp() != content.stamp() {
            return Err(NotFetched::Changed);
        }
        content.fetched().map_err(|_| NotFetched::Changed)?;
        buf.copy_from_slice(&bytes);
        Ok(())
    }

    /// Reads what is kept, and past the store what is not.
    fn read_past(
        &self,
        handle: &Handle,
        content: &Content,
        offset: u64,
        size: usize,
    ) -> Result<Vec<u8>, NotFetched> {
        let mut bytes = vec![0; size];
        let Ok(read) = content.object.read(offset, &mut bytes) else {
            // It cannot be read, so all of it is the source's.
            return Ok(self.with_file(handle, |file| read_into(file, offset, size))?);
        };
        bytes.truncate(read.len);
        for gap in read.missing {
            let range = (gap.start - offset) as usize..(gap.end - offset) as usize;
            self.bring(handle, content, gap.start, &mut bytes[range])?;
        }
        Ok(bytes)
    }
}

/// As many bytes as there are.
fn read_into(file: &std::fs::File, offset: u64, size: usize) -> Res<Vec<u8>> {
    let (mut bytes, mut done) = (vec![0; size], 0);
    while done < size {
        match file.read_at(&mut bytes[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

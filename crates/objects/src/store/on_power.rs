//! An index on a disk that loses power: for tests, which include this file, and for fuzzing.

use redb::StorageBackend;
use std::io;
use std::sync::Arc;
use vswap_segment::power::Power;

/// The index's disk.
#[derive(Debug)]
pub struct Index(pub Arc<Power>);

impl StorageBackend for Index {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let got = self.0.read(offset, out);
        if got == out.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.flush()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

//! An area whose segments outlive the run: that of a store of named objects, known by its number.

use super::header::{HEADER_BYTES, Header, NoHeader, VERSION};
use super::{Area, BLOCK, LEAST, patiently, read};
use crate::AlignedBuf;
use crate::error::AreaError;
use std::path::Path;
use vswap_sys::direct::Named;

impl Area {
    /// Makes the file of a store: `bytes` long in all, which take no room yet. Gives the number by which it is known.
    ///
    /// # Errors
    /// When there is something of that name, or it cannot be made.
    pub fn create_durable(path: &Path, bytes: u64) -> Result<(Self, u64), AreaError> {
        Self::long_enough(path, bytes)?;
        let named = Named::create_file(path, bytes)?;
        let header = Header { durable: true, ..Header::new(bytes) };
        let mut head = AlignedBuf::zeroed(BLOCK);
        head[..HEADER_BYTES].copy_from_slice(&header.encode());
        let io = |act| move |source| AreaError::Io { path: path.to_owned(), act, source };
        named.file().write_at(0, &head).map_err(io("write to"))?;
        named.file().sync().map_err(io("write to"))?;
        Ok((Self::kept(named, bytes), header.number))
    }

    /// Opens the file of a store, for one user alone, and gives the number by which it is known.
    ///
    /// # Errors
    /// When it is in use, is not a store's, or a part of it is missing.
    pub fn open_durable(path: &Path) -> Result<(Self, u64), AreaError> {
        let named = patiently(|| Named::open_file(path))?;
        let path = || path.to_owned();
        let foreign = |offset| AreaError::NoStore { path: path(), offset };
        if named.len() < BLOCK as u64 {
            return Err(foreign(named.len()));
        }
        let header = match Header::decode(&read(&named, 0, BLOCK)?) {
            Ok(header) => header,
            Err(NoHeader::Magic) => return Err(foreign(0)),
            Err(NoHeader::Version { found }) => {
                return Err(AreaError::Version {
                    path: path(),
                    store: true,
                    offset: 8,
                    found,
                    known: VERSION,
                });
            }
            Err(NoHeader::Damaged { offset }) => {
                return Err(AreaError::Damaged { path: path(), store: true, offset });
            }
        };
        if !header.durable {
            return Err(foreign(10));
        }
        if header.bytes > named.len() || header.bytes < LEAST {
            return Err(AreaError::Truncated {
                path: path(),
                store: true,
                offset: named.len(),
                says: header.bytes,
            });
        }
        Ok((Self::kept(named, header.bytes), header.number))
    }

    fn kept(named: Named, bytes: u64) -> Self {
        Self { named, bytes, sparse: true, durable: true, process: std::process::id() }
    }
}

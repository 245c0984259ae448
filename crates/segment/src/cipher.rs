//! [`Cipher`]: what makes the bytes on a tier unreadable and unforgeable without the run's key. [`Keys`]: all that guards them.
//!
//! AES-256-GCM (NIST SP 800-38D), or ChaCha20-Poly1305 (RFC 8439) where the processor has no AES instructions, through `ring`.
//!
//! # Why no nonce is used twice
//! Both break when one key seals two texts under one nonce. The nonce of an entry is its segment's sequence number and its offset in it.
//! - A key belongs to one store: it is random, [`Keys::random`] makes one for each, and it is never stored.
//! - A store never gives a sequence number twice (`SegmentTable::reserve` counts up under the table's lock, also for segments that are
//!   given up, whose write fails, or whose number and extent are used again): one sequence number is one builder.
//! - A builder seals each of its entries once: `seal` consumes it. Its entries do not overlap, so their offsets differ.
//! - What is written again is the same sealed bytes: the rest of a short write, a segment that moves to another tier. They are copied;
//!   what cleaning packs goes through a new builder.
//! - A segment that moves out of memory (see [`Ghost`](crate::Ghost)) is sealed then, perhaps not for the first time: but sequence number,
//!   offset and text of an entry never change, so it is the same text under the same nonce, and the same bytes.
//! - A snapshot shares entries, which are only read. A forked child has no key (`MADV_DONTFORK`).
//!
//! 64 bits of sequence and 17 of offset fit in the 96 of the nonce side by side. With counted nonces the bound is the volume: the advantage
//! that an attacker has from 2^48 blocks (4 PiB) under one AES key is about 2^-33, and a segment number has only 27 bits anyway.
//!
//! # What is not hidden
//! Headers and summary stand in the clear: which slots, how long their entries are, which codec. No byte of a page does.

use crate::FormatError;
use crate::addr::UNIT;
use crate::format::{Guard, RunKey, checksum};
use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use std::io;
use std::sync::Arc;
use vswap_sys::locked::Locked;

/// Bytes of an entry's header that follow its guard.
const FIELDS: usize = 16;

/// A secret key. Kept in locked memory; see [`Locked`].
#[derive(Debug)]
pub struct Cipher {
    key: Locked<LessSafeKey>,
}

impl Cipher {
    /// A fresh random key.
    ///
    /// # Errors
    /// When no page may be locked in memory (`RLIMIT_MEMLOCK`), or the kernel has no random numbers.
    pub fn random() -> io::Result<Self> {
        let fast = std::arch::is_x86_feature_detected!("aes");
        let algorithm = if fast { &AES_256_GCM } else { &CHACHA20_POLY1305 };
        let mut failed = false;
        let key = Locked::new(|| {
            // On the stack, which is overwritten afterwards.
            let mut bytes = [0_u8; 32];
            failed = SystemRandom::new().fill(&mut bytes).is_err();
            LessSafeKey::new(UnboundKey::new(algorithm, &bytes).expect("both take 32 bytes"))
        })?;
        if failed {
            return Err(io::Error::other("the kernel gives no random numbers for a key"));
        }
        Ok(Self { key })
    }

    fn nonce(sequence: u64, offset: usize) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&sequence.to_le_bytes());
        nonce[8..].copy_from_slice(&((offset / UNIT) as u32).to_le_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    /// Encrypts an entry in place: tag, fields, text.
    fn seal(&self, sequence: u64, offset: usize, entry: &mut [u8]) {
        let (tag, fields, text) = parts(entry);
        let sealed =
            self.key.seal_in_place_separate_tag(Self::nonce(sequence, offset), Aad::from(fields), text);
        // An entry is far shorter than the 64 GiB that this could refuse.
        tag.copy_from_slice(sealed.expect("an entry is not too long to seal").as_ref());
    }

    /// Checks and decrypts an entry in place.
    fn open(&self, sequence: u64, offset: usize, entry: &mut [u8]) -> Result<(), FormatError> {
        let (tag, fields, text) = parts(entry);
        let tag = Tag::from(*tag);
        let opened = self.key.open_in_place_separate_tag(
            Self::nonce(sequence, offset),
            Aad::from(fields),
            tag,
            text,
            0..,
        );
        opened.map(drop).map_err(|_| FormatError::Seal { offset })
    }
}

/// Tag, the fields of the header, and the text of an entry. The caller has checked the length.
fn parts(entry: &mut [u8]) -> (&mut [u8; 16], [u8; FIELDS], &mut [u8]) {
    let (tag, rest) = entry.split_first_chunk_mut().expect("an entry has a tag");
    let (fields, text) = rest.split_first_chunk_mut::<FIELDS>().expect("an entry has a header");
    (tag, *fields, text)
}

/// All that guards the bytes of a store: the seed of its checksums, and the key if pages are encrypted.
#[derive(Clone, Debug)]
pub struct Keys {
    pub(crate) run: RunKey,
    cipher: Option<Arc<Cipher>>,
    guard: Guard,
}

impl Keys {
    /// Fresh random keys. Not to be shared between stores: each counts its own sequence numbers.
    ///
    /// # Errors
    /// As [`Cipher::random`], if `encrypt`.
    pub fn random(encrypt: bool) -> io::Result<Self> {
        let cipher = if encrypt { Some(Arc::new(Cipher::random()?)) } else { None };
        Ok(Self::of(RunKey::random(), cipher))
    }

    /// What guards segments that outlive the run: checksums with this seed, which is kept with what they are of. They are not encrypted. Sequence
    /// numbers are to go on where they ended.
    #[must_use]
    pub fn durable(seed: RunKey) -> Self {
        Self::of(seed, None)
    }

    /// Encryption with a key, beside a seed for checksums that a test can repeat.
    #[must_use]
    pub fn encrypting(run: RunKey, cipher: Cipher) -> Self {
        Self::of(run, Some(Arc::new(cipher)))
    }

    fn of(run: RunKey, cipher: Option<Arc<Cipher>>) -> Self {
        let guard = if cipher.is_some() { Guard::Encrypted } else { Guard::Checksum };
        Self { run, cipher, guard }
    }

    /// The same for what never leaves memory: nothing is encrypted, and all is laid out as where it is, so that a segment keeps its
    /// addresses when it moves.
    #[must_use]
    pub(crate) fn in_memory(&self) -> Self {
        Self { cipher: None, ..self.clone() }
    }

    /// The flags that a segment's header has for it.
    pub(crate) fn flags(&self) -> u16 {
        u16::from(self.cipher.is_some())
    }

    /// What stands before each entry.
    #[must_use]
    pub fn guard(&self) -> Guard {
        self.guard
    }

    /// Guards an entry, from its guard to the end of its bytes.
    pub(crate) fn protect(&self, sequence: u64, offset: usize, entry: &mut [u8]) {
        match &self.cipher {
            Some(cipher) => cipher.seal(sequence, offset, entry),
            None => {
                let rest = self.guard.header_bytes() - FIELDS;
                entry[Guard::CHECKSUM_BYTES..rest].fill(0);
                let sum = self.sum(sequence, offset, entry);
                entry[..Guard::CHECKSUM_BYTES].copy_from_slice(&sum.to_le_bytes());
            }
        }
    }

    /// Checks an entry from its guard to the end of its bytes, and decrypts it where it is.
    pub(crate) fn open(&self, sequence: u64, offset: usize, entry: &mut [u8]) -> Result<(), FormatError> {
        match &self.cipher {
            Some(cipher) => cipher.open(sequence, offset, entry),
            None if entry[..Guard::CHECKSUM_BYTES] == self.sum(sequence, offset, entry).to_le_bytes() => {
                Ok(())
            }
            None => Err(FormatError::Checksum { offset }),
        }
    }

    fn sum(&self, sequence: u64, offset: usize, entry: &[u8]) -> u64 {
        checksum(self.run.seed(sequence, offset), &entry[Guard::CHECKSUM_BYTES..])
    }
}

/// No encryption.
impl From<RunKey> for Keys {
    fn from(run: RunKey) -> Self {
        Self::of(run, None)
    }
}

//! Recorded faults: which page of which space was asked for, and why, in order; and their form in a file.
//!
//! A file is [`MAGIC`] and then one record after the other; it may end anywhere, even in the middle of one. A record is a varint (seven bits a byte,
//! lowest first, the highest bit says that more follow) whose bits are, from the lowest: 0 and 1, why; 2, whether the space is another one than that
//! of the record before; from 3 on, how far the page is from that of the record before, in zigzag (0, -1, 1, -2, ..). If the
//! space is another one, its number follows as a varint. Before the first record stand page 0 and space 0. Neighbours come one after the
//! other so often that most records take one or two bytes.

/// The first bytes of a file.
pub const MAGIC: [u8; 8] = *b"vswapft1";

/// The longest record in bytes.
pub const LONGEST: usize = 16;

/// Pages are below this: 2^64 bytes.
const PAGES: u64 = 1 << 52;

/// What a fault was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The first touch of a page, or the first after its bytes were given back.
    First = 0,
    /// The page was about to be moved out, and was still in memory.
    Staged = 1,
    /// The page was out.
    Out = 2,
    /// The first write to a page in memory that was protected.
    Write = 3,
}

impl Why {
    const ALL: [Why; 4] = [Why::First, Why::Staged, Why::Out, Why::Write];
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The page's number in its space: its address by 4096.
    pub page: u64,
    /// The space, a number that no other had.
    pub space: u32,
    /// What it was for.
    pub why: Why,
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordError {
    /// There is only the beginning of one.
    Cut,
    /// No writer makes such.
    Malformed,
}

impl core::fmt::Display for RecordError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            RecordError::Cut => "the record is not complete",
            RecordError::Malformed => "no record begins so",
        })
    }
}

impl core::error::Error for RecordError {}

/// What both sides know of the record before: one of these writes a file, or reads it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Coder {
    page: u64,
    space: u32,
}

impl Coder {
    /// Writes the next record to the beginning of `into`; returns how many bytes it takes.
    pub fn write(&mut self, fault: Recorded, into: &mut [u8; LONGEST]) -> usize {
        let page = fault.page % PAGES;
        let distance = page as i64 - self.page as i64;
        let zigzag = (distance << 1 ^ distance >> 63) as u64;
        let moved = fault.space != self.space;
        let mut at = put(zigzag << 3 | u64::from(moved) << 2 | fault.why as u64, into, 0);
        if moved {
            at = put(u64::from(fault.space), into, at);
        }
        *self = Coder { page, space: fault.space };
        at
    }

    /// Reads the record at the beginning of `bytes`; returns how many bytes it took.
    ///
    /// # Errors
    /// If there is none, or not a whole one. Then nothing was read.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(Recorded, usize), RecordError> {
        let (head, mut at) = take(bytes, 0)?;
        let zigzag = head >> 3;
        let distance = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        let page = self.page.checked_add_signed(distance).filter(|page| *page < PAGES);
        let page = page.ok_or(RecordError::Malformed)?;
        let mut space = self.space;
        if head & 4 != 0 {
            let (number, end) = take(bytes, at)?;
            space = u32::try_from(number).map_err(|_| RecordError::Malformed)?;
            at = end;
        }
        *self = Coder { page, space };
        Ok((Recorded { page, space, why: Why::ALL[head as usize & 3] }, at))
    }
}

fn put(mut value: u64, into: &mut [u8; LONGEST], mut at: usize) -> usize {
    while value >= 0x80 {
        into[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    into[at] = value as u8;
    at + 1
}

fn take(bytes: &[u8], from: usize) -> Result<(u64, usize), RecordError> {
    let mut value = 0;
    for (i, byte) in bytes[from..].iter().enumerate() {
        // Nine times seven bits: more than any record has.
        if i == 9 {
            return Err(RecordError::Malformed);
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok((value, from + i + 1));
        }
    }
    Err(RecordError::Cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(page: u64, space: u32, why: Why) -> Recorded {
        Recorded { page, space, why }
    }

    #[test]
    fn the_bytes_are_those_that_are_documented() {
        let mut coder = Coder::default();
        let mut bytes = [0; LONGEST];
        // 5 pages further is 10 in zigzag.
        assert_eq!(coder.write(fault(5, 0, Why::Out), &mut bytes), 1);
        assert_eq!(bytes[0], 10 << 3 | 2);
        // 1 back is 1, in another space.
        assert_eq!(coder.write(fault(4, 300, Why::First), &mut bytes), 3);
        assert_eq!(bytes[..3], [1 << 3 | 4, 300u64 as u8 | 0x80, 2]);
    }

    #[test]
    fn the_longest_record_fits() {
        let mut coder = Coder { page: 0, space: 0 };
        let mut bytes = [0; LONGEST];
        let far = fault(PAGES - 1, u32::MAX, Why::Write);
        let len = coder.write(far, &mut bytes);
        assert_eq!(Coder::default().read(&bytes[..len]), Ok((far, len)));
        for cut in 0..len {
            assert_eq!(Coder::default().read(&bytes[..cut]), Err(RecordError::Cut), "{cut} bytes");
        }
    }

    #[test]
    fn what_no_writer_makes_is_refused() {
        // One page before the first.
        assert_eq!(Coder::default().read(&[1 << 3]), Err(RecordError::Malformed));
        assert_eq!(Coder::default().read(&[0xff; 12]), Err(RecordError::Malformed));
        let space = [4, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(Coder::default().read(&space), Err(RecordError::Malformed));
    }
}

//! What is on a file or device before it is used: a header of ours, a signature of somebody else.

use crate::input::Input;
use std::cell::RefCell;
use vswap_segment::fuzz;

/// Bytes are read as the header of an area, with their checksum or a right one: what is read would be written the same.
pub fn area(data: &[u8]) {
    let mut input = Input::new(data);
    let forged = input.u8() & 1 == 1;
    fuzz::area_is_written_as_read(&mut input.rest().to_vec(), forged);
    // And what is written is read.
    let mut input = Input::new(data);
    assert!(fuzz::area_is_written_as_read(&mut fuzz::area(input.u64(), input.u64()), false));
}

pub(crate) fn area_seeds() -> Vec<Vec<u8>> {
    let whole = fuzz::area(16 << 20, 7).to_vec();
    let mut flags = whole.clone();
    flags[10] = 1;
    vec![
        [&[0], &whole[..]].concat(),
        [&[1], &whole[..]].concat(),
        [&[1], &flags[..]].concat(),
        [&[0], &whole[..60]].concat(),
        [&[0], &whole[..], &[0; 64]].concat(),
    ]
}

thread_local! {
    /// Beginning and end, zeroes between two calls: 3 MiB are too much to make each time.
    static ENDS: RefCell<[Vec<u8>; 2]> = RefCell::new(fuzz::SIGNED.map(|len| vec![0; len]));
}

/// Something stands at places of zeroes: what is found stands where it is said to, and is not found once that is gone.
pub fn signatures(data: &[u8]) {
    let mut input = Input::new(data);
    let [head_len, tail_len] = fuzz::SIGNED.map(|len| len as u64);
    // From less than the end's to much more than both.
    let len = (u64::from(input.u32()) << (input.u8() % 20)).max(1) + u64::from(input.u16());
    let tail_at = len.saturating_sub(tail_len).next_multiple_of(4096).min(len);
    ENDS.with_borrow_mut(|[head, tail]| {
        let head_end = head_len.min(len) as usize;
        let tail_end = tail_len.min(len - tail_at) as usize;
        let mut touched = Vec::new();
        while !input.is_empty() {
            let (in_tail, back, at) = (input.u8(), input.u8() & 1 == 1, input.u32() as usize);
            let len = usize::from(input.u8() % 80);
            let bytes = input.bytes(len);
            let (into, end) = if in_tail & 1 == 1 { (&mut *tail, tail_end) } else { (&mut *head, head_end) };
            // Counted from either end.
            let at = if back { end.saturating_sub(at % (end + 1)) } else { at % (end + 1) };
            let to = (at + bytes.len()).min(end);
            into[at..to].copy_from_slice(&bytes[..to - at]);
            touched.push((in_tail & 1 == 1, at..to));
        }
        let found = fuzz::signature(&head[..head_end], &tail[..tail_end], tail_at, len);
        assert!(found.is_none() || !touched.is_empty(), "{found:?} in zeroes");
        if let Some((what, at)) = found {
            assert!(at < len, "{what} at {at} of {len}");
            let byte = match at.checked_sub(tail_at) {
                Some(at) if (at as usize) < tail_end => tail[at as usize],
                _ => 0,
            };
            let there = head[..head_end].get(at as usize).is_some_and(|byte| *byte != 0) || byte != 0;
            assert!(there, "{what} at {at}: there is nothing");
        }
        for (in_tail, range) in touched {
            (if in_tail { &mut *tail } else { &mut *head })[range].fill(0);
        }
        let gone = fuzz::signature(&head[..head_end], &tail[..tail_end], tail_at, len);
        assert_eq!(gone, None, "in zeroes");
    });
}

pub(crate) fn signatures_seeds() -> Vec<Vec<u8>> {
    let one = |in_tail: u8, back: u8, at: u32, bytes: &[u8]| {
        let head = [&[0, 16, 0, 0, 14, 0, 0][..], &[in_tail, back], &at.to_le_bytes()].concat();
        [&head[..], &[bytes.len() as u8], bytes].concat()
    };
    let mut ext = [0; 60];
    for (at, word) in [(0, 16_u32), (4, 64), (24, 2), (56, 0x0001_ef53)] {
        ext[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
    let mut sector = [0; 66];
    (sector[4], sector[12], sector[64], sector[65]) = (0x83, 1, 0x55, 0xaa);
    vec![
        one(0, 0, 4086, b"SWAPSPACE2"),
        one(0, 0, 512, b"EFI PART"),
        one(1, 1, 512, b"EFI PART"),
        one(1, 1, 8192, b"\xfc\x4e\x2b\xa9"),
        one(0, 0, 1024, &ext),
        one(0, 0, 446, &sector),
        one(0, 0, 128 << 10, &0x00ba_b10c_u64.to_le_bytes()),
        one(0, 0, 0, b"XFSB"),
        one(0, 0, 0x10040, b"_BHRfS_M"),
        one(1, 1, 1024, b"Intel Raid ISM Cfg Sig. "),
    ]
}

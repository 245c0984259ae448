//! What fuzzing needs of the formats' insides: bytes with checksums that are right, so that what stands behind them is reached, and whether
//! what was read is written the same. Built for `crates/fuzz` only.

use crate::addr::UNIT;
use crate::area::header::Header as AreaHeader;
use crate::format::{
    EntryHeader, HEADER_BYTES, MAGIC, MAX_STRIDE, SUMMARY_ENTRY_BYTES, SummaryEntry, VERSION, checksum,
};
use crate::view::Expected;
use crate::{EntryAddr, Keys, SEGMENT_BYTES, SegmentId, SegmentView, signatures};

/// Makes anything look like a segment as far as checksums, seals and identity go: what its fields say is left as it is.
pub fn forge(keys: &Keys, segment: SegmentId, sequence: u64, bytes: &mut [u8]) {
    if bytes.len() < HEADER_BYTES {
        return;
    }
    let guard = keys.guard();
    let u32_at =
        |bytes: &[u8], at| bytes.get(at..at + 4).map_or(0, |raw| u32::from_le_bytes(raw.try_into().unwrap()));
    let (count, end) = (u32_at(bytes, 20) as usize, u32_at(bytes, 40) as usize);
    let summary =
        count.checked_mul(SUMMARY_ENTRY_BYTES).and_then(|len| end.checked_add(len)).map(|to| end..to);
    for index in 0..count.min(SEGMENT_BYTES / SUMMARY_ENTRY_BYTES) {
        let at = end + index * SUMMARY_ENTRY_BYTES;
        let Some(listed) = bytes.get(at..at + SUMMARY_ENTRY_BYTES) else { break };
        let (offset, len) = (u32_at(listed, 8) as usize * UNIT, u16::from_le_bytes([listed[12], listed[13]]));
        // As long as the entry itself says: that may differ.
        let field = offset + guard.header_bytes() - 8;
        let inner = bytes.get(field..field + 2).map_or(len, |raw| u16::from_le_bytes([raw[0], raw[1]]));
        if let Some(entry) = bytes.get_mut(offset..offset + guard.header_bytes() + usize::from(inner)) {
            keys.protect(sequence, offset, entry);
        }
    }
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
    bytes[10..12].copy_from_slice(&keys.flags().to_le_bytes());
    bytes[12..14].copy_from_slice(&(HEADER_BYTES as u16).to_le_bytes());
    bytes[14..16].copy_from_slice(&(guard.header_bytes() as u16).to_le_bytes());
    bytes[16..20].copy_from_slice(&segment.get().to_le_bytes());
    bytes[24..32].copy_from_slice(&sequence.to_le_bytes());
    bytes[32..40].copy_from_slice(&keys.run.tag().to_le_bytes());
    // None at all has a checksum too, wherever it is said to be.
    let none = if count == 0 { Some(&[][..]) } else { None };
    if let Some(summary) = summary.and_then(|range| bytes.get(range)).or(none) {
        let sum = checksum(keys.run.seed(sequence, end), summary);
        bytes[48..56].copy_from_slice(&sum.to_le_bytes());
    }
    let sum = checksum(keys.run.seed(sequence, 0), &bytes[..56]);
    bytes[56..64].copy_from_slice(&sum.to_le_bytes());
}

/// Reads bytes as a segment in every way there is. Tells whether they were one, and how many of its entries were.
///
/// # Panics
/// When header, summary or an entry that was read would be written differently, or when a check of all finds less than the parts do.
pub fn segment_is_written_as_read(
    keys: &Keys,
    segment: SegmentId,
    sequence: u64,
    bytes: &mut [u8],
) -> Option<usize> {
    let (guard, as_they_were) = (keys.guard(), bytes.to_vec());
    let expected = Expected { keys, segment, sequence };
    let whole = SegmentView::check_all(expected, bytes);
    let view = SegmentView::parse(keys, segment, sequence, bytes).ok()?;
    let header = *view.header();
    let mut written = [0; HEADER_BYTES];
    header.encode(keys, &mut written);
    assert_eq!(written, as_they_were[..HEADER_BYTES], "the header");
    let end = header.entries_end as usize;
    for (index, listed) in view.summary().enumerate() {
        let Ok(listed) = listed else { continue };
        let mut written = [0; SUMMARY_ENTRY_BYTES];
        listed.encode(&mut written);
        let at = end + index * SUMMARY_ENTRY_BYTES;
        assert_eq!(written, as_they_were[at..at + SUMMARY_ENTRY_BYTES], "the summary's entry {index}");
        assert!(
            listed.offset as usize + guard.stride(listed.len.into()) <= end,
            "an entry outside of them all"
        );
    }
    let (mut count, mut good) = (0, 0);
    for entry in view.entries() {
        count += 1;
        let Ok(entry) = entry else { continue };
        good += 1;
        assert_eq!(EntryAddr::from_bits(entry.addr.to_bits()), Some(entry.addr));
        let header = EntryHeader { slot: entry.slot, len: entry.bytes.len() as u16, tag: entry.tag };
        let (at, len) = (entry.addr.offset(), guard.header_bytes() + entry.bytes.len());
        let mut written = [0; MAX_STRIDE];
        let written = &mut written[..guard.stride(entry.bytes.len())];
        written[guard.header_bytes()..len].copy_from_slice(entry.bytes);
        header.encode(guard, written);
        keys.protect(sequence, at, &mut written[..len]);
        assert_eq!(written[..len], as_they_were[at..at + len], "the entry at {at:#x}");
    }
    assert_eq!(count, header.count as usize);
    if whole.is_ok() {
        // They may stand in another order than they are listed, or over each other: then not all can be had in a row.
        let listed =
            |index: usize| SummaryEntry::decode(guard, &as_they_were[end..], index, header.entries_end);
        let ends = (0..count).map(|index| listed(index).expect("all was checked"));
        let mut from = 0;
        let apart = ends.into_iter().all(|entry| {
            let fits = entry.offset >= from;
            from = entry.offset + guard.stride(entry.len.into()) as u32;
            fits
        });
        assert!(!apart || good == count, "all was right, and {good} of {count} entries could be read");
    }
    Some(good)
}

/// Reads bytes as the header of an area. Tells whether they were one; with `forged`, the checksum is made right first.
///
/// # Panics
/// When a header that was read would be written differently.
pub fn area_is_written_as_read(head: &mut [u8], forged: bool) -> bool {
    if forged && let Some(raw) = head.first_chunk_mut() {
        AreaHeader::sum(raw);
    }
    let Ok(header) = AreaHeader::decode(head) else { return false };
    assert!(head.starts_with(&header.encode()), "{header:?}");
    true
}

/// A header of an area, for a fuzzer to begin with.
pub fn area(bytes: u64, number: u64) -> [u8; 64] {
    AreaHeader { bytes, number, durable: number & 1 != 0 }.encode()
}

/// Bytes at the beginning and at the end in which signatures stand.
pub const SIGNED: [usize; 2] = [signatures::HEAD_BYTES, signatures::TAIL_BYTES];

/// Whose a file of `len` bytes is, and where that stands.
pub fn signature(head: &[u8], tail: &[u8], tail_at: u64, len: u64) -> Option<(&'static str, u64)> {
    signatures::find(head, tail, tail_at, len).map(|found| (found.what, found.offset))
}

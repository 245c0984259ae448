//! What others leave on a disk to say that it is theirs: magic numbers, where they stand, and of whom.
//!
//! A table with the well-known ones, as `blkid -p` knows them. Magics of few bytes are believed only if what stands beside them fits. That
//! nothing is found does not mean that nothing is there: see [`area`](crate::area), which refuses what it does not know.

/// Bytes at the beginning in which signatures stand.
pub(crate) const HEAD_BYTES: usize = 2 << 20;
/// Bytes at the end in which signatures stand.
pub(crate) const TAIL_BYTES: usize = 1 << 20;

/// What was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signature {
    /// Whose it is.
    pub what: &'static str,
    /// Where it stands.
    pub offset: u64,
}

/// A magic at a fixed place.
struct Magic {
    what: &'static str,
    at: usize,
    bytes: &'static [u8],
    /// Whether what stands beside it fits; gets everything from the beginning.
    fits: fn(&[u8]) -> bool,
}

const fn magic(what: &'static str, at: usize, bytes: &'static [u8]) -> Magic {
    Magic { what, at, bytes, fits: |_| true }
}

/// At fixed places from the beginning. Of several that are there the first is named: so the special ones are before those that others
/// have as well.
const AT_THE_START: &[Magic] = &[
    magic("a LUKS header", 0, b"LUKS\xba\xbe"),
    magic("a second LUKS header", 0x4000, b"SKUL\xba\xbe"),
    magic("a BitLocker volume", 3, b"-FVE-FS-"),
    magic("a VDO volume", 0, b"dmvdo001"),
    magic("dm-integrity", 0, b"integrt\0"),
    magic("dm-verity", 0, b"verity\0\0"),
    magic("a bcache or bcachefs superblock", 0x1018, b"\xc6\x85\x73\xf6"),
    magic("a Stratis pool", 516, b"!Stra0tis\x86\xff\x02^\x41rh"),
    magic("a Ceph store", 0, b"bluestore block device"),
    magic("a Linux RAID member (md)", 0, b"\xfc\x4e\x2b\xa9"),
    magic("a Linux RAID member (md)", 0x1000, b"\xfc\x4e\x2b\xa9"),
    magic("an LVM physical volume", 0, b"LABELONE"),
    magic("an LVM physical volume", 512, b"LABELONE"),
    magic("an LVM physical volume", 1024, b"LABELONE"),
    magic("an LVM physical volume", 1536, b"LABELONE"),
    magic("a GUID partition table", 512, b"EFI PART"),
    magic("a GUID partition table", 4096, b"EFI PART"),
    magic("a swap area", 4086, b"SWAPSPACE2"),
    magic("a swap area", 4086, b"SWAP-SPACE"),
    magic("a swap area", 8182, b"SWAPSPACE2"),
    magic("a swap area", 16374, b"SWAPSPACE2"),
    magic("a swap area", 32758, b"SWAPSPACE2"),
    magic("a swap area", 65526, b"SWAPSPACE2"),
    magic("a hibernated system", 4086, b"S1SUSPEND"),
    magic("a hibernated system", 4086, b"S2SUSPEND"),
    magic("a hibernated system", 4086, b"ULSUSPEND"),
    magic("a hibernated system", 4086, b"LINHIB0001"),
    Magic { what: "an ext2, ext3 or ext4 file system", at: 0x438, bytes: b"\x53\xef", fits: is_ext },
    magic("an XFS file system", 0, b"XFSB"),
    magic("a btrfs file system", 0x10040, b"_BHRfS_M"),
    magic("an F2FS file system", 0x400, b"\x10\x20\xf5\xf2"),
    magic("an EROFS file system", 0x400, b"\xe2\xe1\xf5\xe0"),
    magic("a SquashFS file system", 0, b"hsqs"),
    magic("a SquashFS file system", 0, b"sqsh"),
    magic("a cramfs file system", 0, b"\x45\x3d\xcd\x28"),
    magic("a romfs file system", 0, b"-rom1fs-"),
    magic("a NILFS file system", 0x406, b"\x34\x34"),
    magic("a JFS file system", 0x8000, b"JFS1"),
    magic("a ReiserFS file system", 0x2034, b"ReIsEr"),
    magic("a ReiserFS file system", 0x10034, b"ReIsEr"),
    magic("a GFS2 file system", 0x10000, b"\x01\x16\x19\x70"),
    magic("an OCFS2 file system", 0x400, b"OCFSV2"),
    magic("an OCFS2 file system", 0x800, b"OCFSV2"),
    magic("an OCFS2 file system", 0x1000, b"OCFSV2"),
    magic("an OCFS2 file system", 0x2000, b"OCFSV2"),
    magic("an APFS container", 32, b"NXSB"),
    magic("an HFS+ file system", 0x400, b"H+\0\x04"),
    magic("an HFS+ file system", 0x400, b"HX\0\x05"),
    magic("an ISO 9660 file system", 0x8001, b"CD001"),
    magic("a UDF file system", 0x8001, b"BEA01"),
    magic("a UDF file system", 0x8001, b"NSR0"),
    magic("an exFAT file system", 3, b"EXFAT   "),
    magic("an NTFS file system", 3, b"NTFS    "),
    magic("a FAT file system", 0x52, b"FAT32   "),
    magic("a FAT file system", 0x36, b"FAT16   "),
    magic("a FAT file system", 0x36, b"FAT12   "),
    magic("a FAT file system", 0x36, b"FAT     "),
    Magic { what: "a partition table", at: 510, bytes: b"\x55\xaa", fits: is_partition_table },
    magic("a boot sector", 510, b"\x55\xaa"),
];

/// Superblock of ext: sane sizes beside a magic of two bytes.
fn is_ext(head: &[u8]) -> bool {
    let (inodes, blocks) = (number(head, 0x400), number(head, 0x404));
    inodes > 0 && blocks > 0 && number(head, 0x414) <= 1 && number(head, 0x418) <= 6
}

/// At least one partition, and none that is half of one.
fn is_partition_table(head: &[u8]) -> bool {
    let entries = || head.get(446..510).unwrap_or_default().chunks_exact(16);
    entries().all(|entry| entry[0] & 0x7f == 0)
        && entries().any(|entry| entry[4] != 0 && number(entry, 12) > 0)
}

/// The little-endian number at `at`, 0 if there is none.
fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|field| field.try_into().ok()).map_or(0, u32::from_le_bytes)
}

const MD: &[u8] = b"\xfc\x4e\x2b\xa9";
const ZFS: [u64; 2] = [0x00ba_b10c, 0x0cb1_ba00_0000_0000];
/// A ZFS label; there are two at the beginning and two at the end.
const ZFS_LABEL: u64 = 256 << 10;

/// The signature that `head`, the first [`HEAD_BYTES`] of `len` bytes, and `tail`, the last ones from `tail_at` on, have.
pub(crate) fn find(head: &[u8], tail: &[u8], tail_at: u64, len: u64) -> Option<Signature> {
    let here = |magic: &&Magic| {
        head.get(magic.at..).is_some_and(|rest| rest.starts_with(magic.bytes)) && (magic.fits)(head)
    };
    let start = AT_THE_START.iter().find(here);
    let start = start.map(|magic| Signature { what: magic.what, offset: magic.at as u64 });
    start.or_else(|| zfs(head, tail, tail_at, len)).or_else(|| at_the_end(tail, tail_at, len))
}

/// Uberblocks stand in the second half of each label, one each KiB at least.
fn zfs(head: &[u8], tail: &[u8], tail_at: u64, len: u64) -> Option<Signature> {
    let end = len - len % ZFS_LABEL;
    let labels = [Some(0), Some(ZFS_LABEL), end.checked_sub(2 * ZFS_LABEL), end.checked_sub(ZFS_LABEL)];
    let blocks =
        labels.into_iter().flatten().flat_map(|label| (128..256).map(move |kib| label + (kib << 10)));
    let is = |offset: &u64| {
        let bytes = part(head, 0, *offset, 8).or_else(|| part(tail, tail_at, *offset, 8));
        let word = bytes.and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        word.is_some_and(|word| ZFS.contains(&word))
    };
    blocks.clone().find(is).map(|offset| Signature { what: "a ZFS pool", offset })
}

/// What stands at places counted from the end.
fn at_the_end(tail: &[u8], tail_at: u64, len: u64) -> Option<Signature> {
    let sectors = len / 512;
    let places = [
        // The second table, at the last sector.
        ("a GUID partition table", len.checked_sub(512), b"EFI PART".as_slice()),
        ("a GUID partition table", len.checked_sub(4096), b"EFI PART"),
        // Format 1.0, and 0.90.
        ("a Linux RAID member (md)", sectors.checked_sub(16).map(|at| at / 8 * 8 * 512), MD),
        ("a Linux RAID member (md)", (len - len % 65536).checked_sub(65536), MD),
        ("an Intel RAID member", len.checked_sub(1024), b"Intel Raid ISM Cfg Sig. "),
        ("a DDF RAID member", len.checked_sub(512), b"\xde\x11\xde\x11"),
    ];
    let is = |(what, at, bytes): (&'static str, Option<u64>, &[u8])| {
        let offset = at?;
        (part(tail, tail_at, offset, bytes.len())? == bytes).then_some(Signature { what, offset })
    };
    places.into_iter().find_map(is)
}

/// `len` bytes at `offset` of what `bytes`, which begin at `base`, are a part of.
fn part(bytes: &[u8], base: u64, offset: u64, len: usize) -> Option<&[u8]> {
    let from = usize::try_from(offset.checked_sub(base)?).ok()?;
    bytes.get(from..from.checked_add(len)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = 64 << 20;

    /// What is found if `bytes` stand at `at` of zeroes.
    fn found(at: u64, bytes: &[u8]) -> Option<Signature> {
        let (mut head, mut tail) = (vec![0; HEAD_BYTES], vec![0; TAIL_BYTES]);
        let tail_at = LEN - TAIL_BYTES as u64;
        let (into, at) = if at < tail_at { (&mut head, at) } else { (&mut tail, at - tail_at) };
        into[at as usize..][..bytes.len()].copy_from_slice(bytes);
        find(&head, &tail, tail_at, LEN)
    }

    /// Written down from the formats' own descriptions: a KiB, bytes behind it, the magic, a word of its name.
    const KNOWN: &[(u64, u64, &[u8], &str)] = &[
        (0, 0, &[0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe], "LUKS"),
        (16, 0, &[0x53, 0x4b, 0x55, 0x4c, 0xba, 0xbe], "LUKS"),
        (0, 3, b"-FVE-FS-", "BitLocker"),
        (0, 0, b"dmvdo001", "VDO"),
        (0, 0, b"integrt\x00", "integrity"),
        (0, 0, b"verity\x00\x00", "verity"),
        // Superblock at 4 KiB, its magic behind a checksum, an offset and a version.
        (
            4,
            24,
            &[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81],
            "bcache",
        ),
        (0, 512 + 4, b"!Stra0tis\x86\xff\x02^\x41rh", "Stratis"),
        (0, 0, b"bluestore block device\n", "Ceph"),
        // Formats 1.1 and 1.2: the number a92b4efc.
        (0, 0, &0xa92b_4efc_u32.to_le_bytes(), "RAID"),
        (4, 0, &0xa92b_4efc_u32.to_le_bytes(), "RAID"),
        // In any of the first four sectors.
        (0, 0, b"LABELONE", "LVM"),
        (0, 512, b"LABELONE", "LVM"),
        (1, 0, b"LABELONE", "LVM"),
        (1, 512, b"LABELONE", "LVM"),
        // The second sector, of 512 bytes or 4 KiB.
        (0, 512, b"EFI PART", "GUID"),
        (4, 0, b"EFI PART", "GUID"),
        // The last ten bytes of a page of 4, 8, 16, 32 or 64 KiB.
        (3, 1014, b"SWAPSPACE2", "swap"),
        (3, 1014, b"SWAP-SPACE", "swap"),
        (7, 1014, b"SWAPSPACE2", "swap"),
        (15, 1014, b"SWAPSPACE2", "swap"),
        (31, 1014, b"SWAPSPACE2", "swap"),
        (63, 1014, b"SWAPSPACE2", "swap"),
        (3, 1014, b"S1SUSPEND\x00", "hibernated"),
        (3, 1014, b"S2SUSPEND\x00", "hibernated"),
        (3, 1014, b"ULSUSPEND\x00", "hibernated"),
        (3, 1014, b"LINHIB0001", "hibernated"),
        (0, 0, &0x5846_5342_u32.to_be_bytes(), "XFS"),
        (64, 64, b"_BHRfS_M", "btrfs"),
        (1, 0, &0xf2f5_2010_u32.to_le_bytes(), "F2FS"),
        (1, 0, &0xe0f5_e1e2_u32.to_le_bytes(), "EROFS"),
        (0, 0, &0x7371_7368_u32.to_le_bytes(), "SquashFS"),
        (0, 0, &0x7371_7368_u32.to_be_bytes(), "SquashFS"),
        (0, 0, &0x28cd_3d45_u32.to_le_bytes(), "cramfs"),
        (0, 0, b"-rom1fs-", "romfs"),
        (1, 6, &0x3434_u16.to_le_bytes(), "NILFS"),
        (32, 0, b"JFS1", "JFS"),
        (8, 52, b"ReIsErFs", "ReiserFS"),
        (64, 52, b"ReIsErFs", "ReiserFS"),
        (64, 52, b"ReIsEr2Fs", "ReiserFS"),
        (64, 52, b"ReIsEr3Fs", "ReiserFS"),
        (64, 0, &0x0116_1970_u32.to_be_bytes(), "GFS2"),
        // The third block, of 512 bytes to 4 KiB.
        (1, 0, b"OCFSV2", "OCFS2"),
        (2, 0, b"OCFSV2", "OCFS2"),
        (4, 0, b"OCFSV2", "OCFS2"),
        (8, 0, b"OCFSV2", "OCFS2"),
        (0, 32, b"NXSB", "APFS"),
        // Versions 4 and 5.
        (1, 0, &[0x48, 0x2b, 0, 4], "HFS+"),
        (1, 0, &[0x48, 0x58, 0, 5], "HFS+"),
        // The 17th sector of 2 KiB, behind the descriptor's type.
        (32, 1, b"CD001", "ISO 9660"),
        (32, 1, b"BEA01", "UDF"),
        (32, 1, b"NSR02", "UDF"),
        (32, 1, b"NSR03", "UDF"),
        (0, 3, b"EXFAT   ", "exFAT"),
        (0, 3, b"NTFS    ", "NTFS"),
        (0, 82, b"FAT32   ", "FAT"),
        (0, 54, b"FAT16   ", "FAT"),
        (0, 54, b"FAT12   ", "FAT"),
        (0, 54, b"FAT     ", "FAT"),
    ];

    #[test]
    fn every_magic_is_found_where_it_stands() {
        for &(kib, behind, bytes, word) in KNOWN {
            let offset = kib * 1024 + behind;
            let found = found(offset, bytes);
            assert!(
                found.is_some_and(|found| found.offset == offset && found.what.contains(word)),
                "{word} at {offset}: {found:?}"
            );
        }
        let known = |magic: &&Magic| {
            let same = |(kib, behind, bytes, _): &(u64, u64, &[u8], &str)| {
                kib * 1024 + behind == magic.at as u64 && bytes.starts_with(magic.bytes)
            };
            // Those that need more than their two bytes have tests of their own.
            KNOWN.iter().any(same) || [0x438, 510].contains(&magic.at)
        };
        assert!(AT_THE_START.iter().all(|magic| known(&magic)));
        for (at, bytes, what) in [
            (LEN - 512, b"EFI PART".as_slice(), "a GUID partition table"),
            (LEN - 4096, b"EFI PART", "a GUID partition table"),
            (LEN - 8192, MD, "a Linux RAID member (md)"),
            (LEN - 65536, MD, "a Linux RAID member (md)"),
            (128 << 10, &ZFS[0].to_le_bytes(), "a ZFS pool"),
            (LEN - 4096, &ZFS[0].to_be_bytes(), "a ZFS pool"),
            (LEN - (384 << 10), &ZFS[1].to_le_bytes(), "a ZFS pool"),
        ] {
            assert_eq!(found(at, bytes), Some(Signature { what, offset: at }));
        }
    }

    #[test]
    fn two_bytes_alone_are_not_taken_for_ext_or_for_a_partition_table() {
        assert_eq!(found(0x438, b"\x53\xef"), None);
        // 16 inodes, 64 blocks, blocks of 4 KiB, a clean state behind the magic.
        let mut superblock = [0_u32; 15];
        (superblock[0], superblock[1], superblock[6], superblock[14]) = (16, 64, 2, 0x0001_ef53);
        let superblock: Vec<_> = superblock.iter().flat_map(|word| word.to_le_bytes()).collect();
        let ext = Signature { what: "an ext2, ext3 or ext4 file system", offset: 1080 };
        assert_eq!(found(1024, &superblock), Some(ext));
        assert_eq!(found(510, b"\x55\xaa").map(|found| found.what), Some("a boot sector"));
        let mut sector = [0; 512];
        sector[446 + 4] = 0x83;
        sector[446 + 12] = 1;
        sector[510..].copy_from_slice(b"\x55\xaa");
        assert_eq!(found(0, &sector), Some(Signature { what: "a partition table", offset: 510 }));
    }

    #[test]
    fn nothing_is_found_in_zeroes_or_in_what_is_too_short() {
        assert_eq!(found(0, b"\0"), None);
        for len in [0, 1, 511, 4095] {
            assert_eq!(find(&vec![0; len], &[], len as u64, len as u64), None);
        }
    }
}

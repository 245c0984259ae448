//! Where the file of evicted pages would be: kind of file system, direct I/O, room.

use std::path::Path;
use std::sync::Arc;

use vswap_sys::direct::{AlignedBuf, BLOCK, DirectFile, DirectWriter, PlaceError, place};

use super::human;
use crate::check::Check;

/// Less free space than this is worth a word.
const SCARCE: u64 = 1 << 30;

pub(super) fn check(checks: &mut Vec<Check>, wanted: Option<&Path>) {
    let dir = match wanted {
        Some(dir) => place::check(dir).map(|()| dir.to_owned()),
        None => place::default_dir(),
    };
    let made = dir.and_then(|dir| DirectFile::create_tried(&dir).map(|file| (dir, file)));
    let (dir, file) = match made {
        Ok(made) => made,
        Err(error) => return checks.push(no_place(&error, wanted.is_some())),
    };
    checks.push(room(&dir));
    let file = Arc::new(file);
    checks.push(direct(&file));
    checks.push(match DirectWriter::new(Arc::clone(&file), 1).uses_io_uring() {
        true => Check::good("io_uring", "works"),
        false => Check::warns(
            "io_uring",
            "refused",
            "Evicted pages are written by plain calls instead: somewhat slower, nothing else.",
        )
        .remedy(io_uring_remedy()),
    });
}

/// A directory that was asked for must do; without one, a run goes on with memory alone.
fn no_place(error: &PlaceError, asked_for: bool) -> Check {
    let found = error.to_string();
    let remedy = "vswap run --disk-path DIR ..      with a directory of yours on a disk";
    if asked_for {
        return Check::fails(
            "disk",
            found,
            "The coldest pages go to an unlinked file there; a memory file system would save nothing.",
            format!(
                "{remedy}, or\nvswap run --disk none ..          to keep everything compressed in memory"
            ),
        );
    }
    Check::warns("disk", found, "Nothing can be written out: all that is evicted stays compressed in memory.")
        .remedy(remedy)
}

fn room(dir: &Path) -> Check {
    match place::free_space(dir) {
        Ok(bytes) if bytes < SCARCE => Check::warns(
            "disk",
            format!("{} free in {}", human(bytes), dir.display()),
            "A program that needs more than memory and this together cannot be held to its limit.",
        )
        .remedy("vswap run --disk-path DIR ..      with a directory where there is more"),
        Ok(bytes) => Check::good("disk", format!("{} free in {}", human(bytes), dir.display())),
        Err(error) => Check::warns(
            "disk",
            format!("free space of {} unknown: {error}", dir.display()),
            "How much can be evicted shows only when the disk is full.",
        ),
    }
}

/// Writes a block and reads it back.
fn direct(file: &DirectFile) -> Check {
    let mut block = AlignedBuf::zeroed(BLOCK);
    block.fill(0x5a);
    let mut back = AlignedBuf::zeroed(BLOCK);
    let tried = file.write_at(0, &block).and_then(|()| file.read_at(0, &mut back));
    match tried {
        Ok(_) if block[..] != back[..] => Check::fails(
            "disk.direct",
            "a block came back with other bytes",
            "Nothing written there can be trusted.",
            "vswap run --disk-path DIR ..      with a directory on another file system",
        ),
        Ok(_) if file.is_direct() => Check::good("disk.direct", "works (O_DIRECT)"),
        Ok(_) => Check::warns(
            "disk.direct",
            "this file system has no O_DIRECT",
            "Evicted pages pass through the page cache: slower, and they take memory there for a while.",
        )
        .remedy("vswap run --disk-path DIR ..      with a directory on ext4, xfs or btrfs"),
        Err(error) => Check::fails(
            "disk.direct",
            error.to_string(),
            "Evicted pages could not be written.",
            "vswap run --disk-path DIR ..      with a directory on another file system",
        ),
    }
}

fn io_uring_remedy() -> &'static str {
    match super::number("/proc/sys/kernel/io_uring_disabled") {
        Some(1 | 2) => "sudo sysctl -w kernel.io_uring_disabled=0",
        _ => "in a container: a seccomp profile that allows io_uring_setup (Docker's default does not)",
    }
}

//! Processes: what `/proc` tells about them, and what they are asked to do.
//!
//! # Safety
//! No call takes pointers but to live locals.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;

/// Ends this process at once, without destructors or exit handlers.
pub fn leave(status: i32) -> ! {
    // SAFETY: no pointers.
    unsafe { libc::_exit(status) }
}

/// Reads a file of `/proc`, a short one in one go. What is not ASCII, as names may be, becomes `?`.
fn read_text(path: &str) -> io::Result<String> {
    let mut text = Vec::with_capacity(4096);
    File::open(path)?.read_to_end(&mut text)?;
    text.iter_mut().filter(|byte| !byte.is_ascii()).for_each(|byte| *byte = b'?');
    String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// A mapping of `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapEntry {
    /// Addresses.
    pub range: Range<u64>,
    /// Readable, writable, executable.
    pub rights: [bool; 3],
    /// Private: writes are the process's own.
    pub private: bool,
    /// Backed by a file (or shared memory).
    pub file: bool,
    /// `[heap]`, `[stack]`, a path, or empty.
    pub name: String,
}

impl MapEntry {
    /// Whether it is private anonymous memory, and none of the kernel's own mappings or a stack that grows.
    pub fn is_manageable(&self) -> bool {
        let special = self.name.starts_with('[') && self.name != "[heap]" && !self.name.starts_with("[anon");
        self.private && !self.file && !special
    }
}

/// Parses `/proc/PID/maps`.
///
/// # Errors
/// What reading it says; `InvalidData` for a line that is not one.
pub fn maps(pid: i32) -> io::Result<Vec<MapEntry>> {
    // Names of files may be any bytes.
    let text = fs::read(format!("/proc/{pid}/maps"))?;
    parse_maps(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// What a text of `/proc/PID/maps` says; `None` if a line is not one.
pub fn parse_maps(text: &[u8]) -> Option<Vec<MapEntry>> {
    // Not `lines`: a file's name may end in what that takes for a part of the line's end.
    String::from_utf8_lossy(text).split_terminator('\n').map(parse_map).collect()
}

fn parse_map(line: &str) -> Option<MapEntry> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let range = u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?;
    if range.is_empty() {
        return None;
    }
    let rights = fields.next()?.as_bytes();
    let inode = fields.nth(2)?;
    Some(MapEntry {
        range,
        rights: [*rights.first()? == b'r', *rights.get(1)? == b'w', *rights.get(2)? == b'x'],
        private: *rights.get(3)? == b'p',
        file: inode != "0",
        name: fields.next().unwrap_or("").trim_start().to_owned(),
    })
}

/// Some of `/proc/PID/status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Number of the process that a thread belongs to.
    pub process: i32,
    /// Its parent.
    pub parent: i32,
    /// Seccomp filters on it.
    pub filters: u32,
    /// Threads in it.
    pub threads: u32,
    /// Anonymous bytes resident.
    pub anonymous: u64,
    /// Bytes of shared memory resident.
    pub shared_memory: u64,
}

/// Reads `/proc/ID/status` of a process or thread.
///
/// # Errors
/// `NotFound` if there is none.
pub fn status(id: i32) -> io::Result<Status> {
    let text = read_text(&format!("/proc/{id}/status"))?;
    let mut status = Status::default();
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let number = value.split_whitespace().next().and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
        match name {
            "Tgid" => status.process = number as i32,
            "PPid" => status.parent = number as i32,
            "Threads" => status.threads = number as u32,
            "Seccomp_filters" => status.filters = number as u32,
            "RssAnon" => status.anonymous = number * 1024,
            "RssShmem" => status.shared_memory = number * 1024,
            _ => {}
        }
    }
    Ok(status)
}

/// Seccomp filters on this process.
///
/// # Errors
/// What `/proc` says.
pub fn own_filters() -> io::Result<u32> {
    // SAFETY: no pointers. It says 0 where there are none.
    if unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) } == 0 {
        return Ok(0);
    }
    status(own_pid()).map(|status| status.filters)
}

/// The state of a thread, as `/proc` has it: `R`, `S`, `D`, `T` (stopped), `t` (traced), `Z`, `X`.
///
/// # Errors
/// `NotFound` or `ESRCH` if it is gone.
pub fn thread_state(pid: i32, tid: i32) -> io::Result<u8> {
    let text = read_text(&format!("/proc/{pid}/task/{tid}/stat"))?;
    // The name, in parentheses, may have any of these in it.
    let state = text.rsplit_once(") ").and_then(|(_, rest)| rest.bytes().next());
    state.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// `/proc/PID/statm`, kept open. It speaks of the process's address space of the moment, after an exec the new one.
#[derive(Debug)]
pub struct Statm(File);

/// What [`Statm`] tells, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemorySize {
    /// Resident, of any kind.
    pub resident: u64,
    /// Resident pages of files and of shared memory.
    pub shared: u64,
    /// Mapped private and writable, with the stack.
    pub private_mapped: u64,
}

impl Statm {
    /// Opens it.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn open(pid: i32) -> io::Result<Statm> {
        File::open(format!("/proc/{pid}/statm")).map(Statm)
    }

    /// Reads it.
    ///
    /// # Errors
    /// `ESRCH` if the process is gone.
    pub fn read(&self) -> io::Result<MemorySize> {
        let mut text = [0; 128];
        let n = self.0.read_at(&mut text, 0)?;
        let mut fields = std::str::from_utf8(&text[..n]).unwrap_or("").split_ascii_whitespace();
        let mut pages = |skip| fields.nth(skip).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0) * 4096;
        let (resident, shared) = (pages(1), pages(0));
        Ok(MemorySize { resident, shared, private_mapped: pages(2) })
    }
}

/// Anonymous and shared-memory bytes of a process, each page divided by its users (`smaps_rollup`).
///
/// # Errors
/// `NotFound`, `PermissionDenied`.
pub fn proportional(pid: i32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| matches!(*name, "Pss_Anon" | "Pss_Shmem"))
        .filter_map(|(_, value)| value.split_whitespace().next()?.parse::<u64>().ok())
        .sum::<u64>()
        * 1024)
}

/// Ranges of a process that a child of it finds empty (`MADV_WIPEONFORK`; flag `wf` in `smaps`). Slow.
///
/// # Errors
/// `NotFound`, `PermissionDenied`.
pub fn wiped_on_fork(pid: i32) -> io::Result<Vec<Range<u64>>> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let mut current = None;
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            found.extend(current.take().filter(|_| flags.split(' ').any(|flag| flag == "wf")));
        } else if let Some(map) = parse_map(line) {
            current = Some(map.range);
        }
    }
    Ok(found)
}

/// Threads of a process.
///
/// # Errors
/// `NotFound`.
pub fn threads(pid: i32) -> io::Result<Vec<i32>> {
    Ok(fs::read_dir(format!("/proc/{pid}/task"))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect())
}

/// Children of all threads of a process.
///
/// # Errors
/// `NotFound`.
pub fn children(pid: i32) -> io::Result<Vec<i32>> {
    let mut all = Vec::new();
    for thread in threads(pid)? {
        if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/task/{thread}/children")) {
            all.extend(text.split_ascii_whitespace().filter_map(|v| v.parse::<i32>().ok()));
        }
    }
    Ok(all)
}

/// When a process started, in clock ticks since boot: with its number, its identity.
///
/// # Errors
/// `NotFound`.
pub fn start_time(pid: i32) -> io::Result<u64> {
    stat_number(pid, 19)
}

/// A number of `/proc/PID/stat`, counted from the process's state on, which is no number.
fn stat_number(pid: i32, at: usize) -> io::Result<u64> {
    let text = read_text(&format!("/proc/{pid}/stat"))?;
    let after = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let found = after.split_ascii_whitespace().nth(at).and_then(|v| v.parse().ok());
    found.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Writes into another process's memory, whatever the rights of its mappings (as a debugger does).
///
/// # Errors
/// `EIO` where nothing is mapped, `PermissionDenied`.
pub fn write_memory(pid: i32, address: u64, bytes: &[u8]) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/mem"))?.write_all_at(bytes, address)
}

/// Sends a signal to a process or, negative, a group.
///
/// # Errors
/// `ESRCH`, `EPERM`.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    if unsafe { libc::kill(pid, signal) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Moves a process (0: this one) to a process group (0: its own).
///
/// # Errors
/// `EPERM`, `ESRCH`, `EACCES` after an exec.
pub fn set_group(pid: i32, group: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    if unsafe { libc::setpgid(pid, group) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The process group of this process.
pub fn group() -> i32 {
    // SAFETY: no pointers, cannot fail.
    unsafe { libc::getpgrp() }
}

/// Number of this process.
pub fn own_pid() -> i32 {
    // SAFETY: no pointers, cannot fail.
    unsafe { libc::getpid() }
}

/// Tells whether this process is privileged as root in its user namespace.
pub fn is_root() -> bool {
    // SAFETY: no pointers, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// How a child changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Ended by itself with this status.
    Exited(u8),
    /// Ended by this signal.
    Killed(i32),
    /// Stopped by this signal.
    Stopped(i32),
    /// Goes on.
    Continued,
}

/// Tells how child `pid` has changed since it was last asked, if it has. Does not wait.
///
/// # Errors
/// `ECHILD`.
pub fn change_of(pid: i32) -> io::Result<Option<Change>> {
    let mut status = 0;
    // SAFETY: one live integer.
    let n =
        unsafe { libc::waitpid(pid, &raw mut status, libc::WUNTRACED | libc::WCONTINUED | libc::WNOHANG) };
    match n {
        0 => Ok(None),
        1.. if libc::WIFEXITED(status) => Ok(Some(Change::Exited(libc::WEXITSTATUS(status) as u8))),
        1.. if libc::WIFSIGNALED(status) => Ok(Some(Change::Killed(libc::WTERMSIG(status)))),
        1.. if libc::WIFSTOPPED(status) => Ok(Some(Change::Stopped(libc::WSTOPSIG(status)))),
        1.. => Ok(Some(Change::Continued)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Collects children that have ended, up to child `keep`, which somebody else waits for.
pub fn reap_but(keep: i32) {
    loop {
        // SAFETY: an all-zero `siginfo_t` is valid, and stays as it is if no child has ended; `waitid` fills it else.
        let ended = unsafe {
            let mut news: libc::siginfo_t = std::mem::zeroed();
            let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            if libc::waitid(libc::P_ALL, 0, &raw mut news, flags) < 0 { 0 } else { news.si_pid() }
        };
        if ended == 0 || ended == keep {
            return;
        }
        let _ = change_of(ended);
    }
}

/// Orphans of our descendants become our children, so that we stay an ancestor of the whole tree.
pub fn adopt_orphans() {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}

/// No core file from this process.
pub fn no_core() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: one live structure.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
}

/// Allows this process as many descriptors as it may have.
pub fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: one live structure for both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Closes a forked process's copies of its parent's descriptors. The process must not return to code that has them.
pub fn close_copies(copies: &[BorrowedFd]) {
    for copy in copies {
        // SAFETY: it belongs to code that the caller promises not to return to.
        unsafe { libc::close(copy.as_raw_fd()) };
    }
}

/// Puts `/dev/null` on standard input, output and error, and closes every other descriptor but `kept`.
///
/// # Errors
/// What opening `/dev/null` says.
pub fn keep_only(kept: &[BorrowedFd]) -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let mut numbers: Vec<u32> = kept.iter().map(|fd| fd.as_raw_fd() as u32).collect();
    numbers.sort_unstable();
    // SAFETY: the three standard descriptors are nobody's property; the rest belong to code that the caller
    // promises not to return to (it has just forked).
    unsafe {
        for standard in 0..3 {
            libc::dup2(null.as_raw_fd(), standard);
        }
        let mut from = 3;
        for number in numbers {
            if number > from {
                libc::syscall(libc::SYS_close_range, from, number - 1, 0);
            }
            from = from.max(number + 1);
        }
        libc::syscall(libc::SYS_close_range, from, u32::MAX, 0);
    }
    std::mem::forget(null);
    Ok(())
}

/// 64 random bits.
///
/// # Errors
/// What `getrandom` says.
pub fn random() -> io::Result<u64> {
    let mut value = 0u64;
    // SAFETY: eight live bytes.
    let n = unsafe { libc::getrandom((&raw mut value).cast(), 8, 0) };
    if n == 8 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Whether an error says that the process, the thread or its address space is gone.
pub fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}

/// Whether a process has ended or is about to: a `SIGKILL` waits for it, or it is on its way out (the kernel's `PF_EXITING`) and has its descriptors
/// still.
pub fn is_ending(pid: i32) -> bool {
    const EXITING: u64 = 4;
    let Ok(status) = read_text(&format!("/proc/{pid}/status")) else { return true };
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let killed = |name| {
        field(name)
            .and_then(|set| u64::from_str_radix(set, 16).ok())
            .is_some_and(|set| set & 1 << (libc::SIGKILL - 1) != 0)
    };
    field("State:").is_none_or(|state| state.starts_with(['Z', 'X']))
        || killed("SigPnd:")
        || killed("ShdPnd:")
        || stat_number(pid, 6).map_or(true, |flags| flags & EXITING != 0)
}

/// Entries of a robust list that the kernel follows (`ROBUST_LIST_LIMIT` of `include/uapi/linux/futex.h`).
const ROBUST_LIST_LIMIT: usize = 2048;

/// Addresses of the futex words that the kernel looks at when thread `tid` ends: of the robust mutexes that it holds, and of
/// the one that it is taking or giving up.
///
/// # Errors
/// What `get_robust_list` and reading the thread's memory say.
pub fn robust_words(tid: i32) -> io::Result<Vec<u64>> {
    let (mut head, mut len) = (0u64, 0usize);
    // SAFETY: writes a pointer and a size to the two words given.
    let got = unsafe { libc::syscall(libc::SYS_get_robust_list, tid, &raw mut head, &raw mut len) };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut words = Vec::new();
    if head == 0 || len != 24 {
        return Ok(words);
    }
    let word = |address: u64| -> io::Result<u64> {
        let mut bytes = [0; 8];
        crate::procvm::read(tid, address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    };
    // `struct robust_list_head`: the list, where the word lies relative to an entry, the pending entry. Bit 0 marks a PI mutex.
    let (offset, pending) = (word(head + 8)?, word(head + 16)? & !1);
    let mut entry = word(head)? & !1;
    while entry != head && entry != 0 && words.len() < ROBUST_LIST_LIMIT {
        words.push(entry.wrapping_add(offset));
        entry = word(entry)? & !1;
    }
    if pending != 0 {
        words.push(pending.wrapping_add(offset));
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_has_addresses_and_all_of_its_name() {
        let line = |range| format!("{range} rw-p 00000000 08:01 5   /a\r\n");
        assert_eq!(parse_maps(line("1000-2000").as_bytes()).unwrap()[0].name, "/a\r");
        for range in ["2000-1000", "1000-1000", "1000", "g-h"] {
            assert_eq!(parse_maps(line(range).as_bytes()), None, "{range}");
        }
    }

    #[test]
    fn map_lines_with_and_without_names_parse() {
        let anonymous = parse_map("7f1c8a000000-7f1c8a021000 rw-p 00000000 00:00 0 ").unwrap();
        assert_eq!(anonymous.range, 0x7f1c8a000000..0x7f1c8a021000);
        assert!(anonymous.private && !anonymous.file && anonymous.name.is_empty());
        let heap =
            parse_map("55d0c0000000-55d0c0021000 rw-p 00000000 00:00 0                [heap]").unwrap();
        assert_eq!(heap.name, "[heap]");
        let file = parse_map("7f1c8a000000-7f1c8a021000 r-xp 00001000 08:01 123   /a path/b c").unwrap();
        assert_eq!((file.file, file.name.as_str(), file.rights), (true, "/a path/b c", [true, false, true]));
        assert!(parse_map("nonsense").is_none());
    }

    /// One that has all its memory to give back has its descriptors for a while after it was killed; taken for one that goes on, nobody waited for it.
    #[test]
    fn who_was_killed_is_ending_until_it_is_gone_and_who_stands_still_is_not() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id() as i32;
        assert!(!is_ending(own_pid()) && !is_ending(pid));
        kill(pid, libc::SIGSTOP).unwrap();
        while thread_state(pid, pid).unwrap() != b'T' {
            std::thread::yield_now();
        }
        assert!(!is_ending(pid));
        kill(pid, libc::SIGKILL).unwrap();
        while thread_state(pid, pid).unwrap() != b'Z' {
            assert!(is_ending(pid));
        }
        assert!(is_ending(pid));
        child.wait().unwrap();
        assert!(is_ending(pid));
    }

    #[test]
    fn a_process_whose_name_is_not_text_is_seen() {
        std::thread::spawn(|| {
            fs::write("/proc/thread-self/comm", b"\xff) Z (\xfe").unwrap();
            // SAFETY: takes and gives numbers only.
            let tid = unsafe { libc::gettid() };
            assert_eq!(status(tid).unwrap().process, own_pid());
            assert_eq!(thread_state(own_pid(), tid).unwrap(), b'R');
            assert!(start_time(tid).unwrap() > 0);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn our_own_figures_are_plausible() {
        let pid = own_pid();
        let size = Statm::open(pid).unwrap().read().unwrap();
        assert!(size.resident > 0 && size.private_mapped > 0 && size.shared < size.resident);
        let status = status(pid).unwrap();
        assert_eq!(status.process, pid);
        assert!(status.threads >= 1);
        assert!(proportional(pid).unwrap() > 0);
        assert!(start_time(pid).unwrap() > 0);
        assert!(threads(pid).unwrap().contains(&pid));
        assert!(maps(pid).unwrap().iter().any(|m| m.name == "[stack]"));
    }
}

//! Where and when threads run: CPUs, nice values, scheduling policies.
//!
//! # Safety
//! The only memory that is passed are live local structures of the types that the calls name.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};

/// The calling thread's nice value.
pub fn nice() -> i32 {
    // SAFETY: no pointers. On Linux "process 0" is the calling thread.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

/// Gives the calling thread a nice value; a hint, as a lower one is not for everybody.
pub fn set_nice(value: i32) {
    // SAFETY: no pointers.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, value) };
}

/// Has the calling thread run before others as soon as it is woken, where the user may ask for that.
pub fn hurry() {
    set_nice(-20);
}

/// Puts this thread under `SCHED_IDLE`, without `CAP_SYS_NICE` for good. Its reads and writes do not go with it: they have the
/// priority that they were given, or that of its nice value. A hint, failure is ignored.
pub fn run_when_idle() {
    keep_io_priority();
    let _ = set_policy(0, libc::SCHED_IDLE);
}

/// Where a class of I/O priority is in its word, and two classes (`include/uapi/linux/ioprio.h`).
const IO_CLASS_SHIFT: u32 = 13;
const IO_CLASS_NONE: i64 = 0;
const IO_CLASS_BEST_EFFORT: i64 = 2;
const IO_WHO_PROCESS: i64 = 1;

/// Fixes the priority of this thread's reads and writes at what its nice value says, unless somebody has fixed it already. Else the
/// kernel takes it from the policy (`task_nice_ioclass` of `include/linux/ioprio.h`), and those of `SCHED_IDLE` have the idle class:
/// mq-deadline and bfq hold them back while anybody else uses the device, 9 ms each beside one reader of a device that answers in 40 us.
fn keep_io_priority() {
    // Whoever started us under that policy wants it for reads and writes too, unless it was done here: then they have a class.
    if runs_when_idle(own_thread()) {
        return;
    }
    let given = match io_priority(0) {
        none if none >> IO_CLASS_SHIFT == IO_CLASS_NONE => {
            IO_CLASS_BEST_EFFORT << IO_CLASS_SHIFT | i64::from((nice() + 20) / 5)
        }
        // Some kernels say what it comes to where nothing was given.
        given => given,
    };
    // SAFETY: takes and gives numbers only.
    unsafe { libc::syscall(libc::SYS_ioprio_set, IO_WHO_PROCESS, 0, given) };
}

/// The I/O priority that thread `tid`, 0 this one, was given, whose class is 0 if it was given none; negative if there is no such
/// thread.
fn io_priority(tid: i32) -> i64 {
    // SAFETY: takes and gives numbers only.
    unsafe { libc::syscall(libc::SYS_ioprio_get, IO_WHO_PROCESS, tid) }
}

/// Puts thread `tid` of this process under the usual policy.
///
/// # Errors
/// `EPERM` without `CAP_SYS_NICE` if it is under `SCHED_IDLE`.
pub fn run_normally(tid: i32) -> io::Result<()> {
    set_policy(tid, libc::SCHED_OTHER)
}

/// Whether thread `tid` of this process is under `SCHED_IDLE`.
pub fn runs_when_idle(tid: i32) -> bool {
    // SAFETY: takes and gives numbers only.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, tid) };
    policy == i64::from(libc::SCHED_IDLE)
}

fn set_policy(tid: i32, policy: libc::c_int) -> io::Result<()> {
    let priority: libc::c_int = 0;
    // Musl's own function refuses, since POSIX means whole processes by it.
    // SAFETY: the kernel's `struct sched_param` is one integer, live for the call.
    let n = unsafe { libc::syscall(libc::SYS_sched_setscheduler, tid, policy, &raw const priority) };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The number of this thread.
pub fn own_thread() -> i32 {
    // SAFETY: no arguments.
    unsafe { libc::gettid() }
}

/// CPUs that this thread may run on.
pub fn allowed_cpus() -> Vec<usize> {
    // SAFETY: an all-zero `cpu_set_t` is valid, and its size is passed with its address.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) != 0 {
            return vec![0];
        }
        (0..libc::CPU_SETSIZE as usize).filter(|&cpu| libc::CPU_ISSET(cpu, &set)).collect()
    }
}

/// Binds this thread to one CPU; a hint, failure is ignored.
pub fn bind_to_cpu(cpu: usize) {
    // SAFETY: as in `allowed_cpus`; `cpu` is below `CPU_SETSIZE`.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if cpu < libc::CPU_SETSIZE as usize {
            libc::CPU_SET(cpu, &mut set);
            libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
        }
    }
}

/// The CPU that a thread ran on last: field 39 of its `stat` in `/proc`. Allocates nothing, so that a fault handler may ask.
///
/// # Errors
/// `NotFound`; `InvalidData` if the kernel says something else than it should.
pub fn last_cpu(tid: u32) -> io::Result<usize> {
    let mut path = io::Cursor::new([0u8; 48]);
    write!(path, "/proc/{tid}/task/{tid}/stat")?;
    let length = path.position() as usize;
    let path = std::str::from_utf8(&path.get_ref()[..length]).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut text = [0u8; 1024];
    let length = File::open(path)?.read(&mut text)?;
    // The name, field 2, may hold anything, spaces and parentheses too.
    let name_end = text[..length].iter().rposition(|&byte| byte == b')').ok_or(io::ErrorKind::InvalidData)?;
    let mut fields = text[name_end + 1..length].split(|&byte| byte == b' ').filter(|field| !field.is_empty());
    let field = fields.nth(36).and_then(|field| std::str::from_utf8(field).ok());
    field.and_then(|field| field.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_on_the_cpu_that_it_is_bound_to_whatever_its_name() {
        let bound = std::thread::Builder::new().name("a) R 1 (2".into()).spawn(|| {
            let tid = own_thread();
            for cpu in allowed_cpus() {
                bind_to_cpu(cpu);
                assert_eq!(last_cpu(tid as u32).unwrap(), cpu);
            }
        });
        bound.unwrap().join().unwrap();
        assert!(last_cpu(u32::MAX).is_err());
    }

    /// Without a class of their own the reads of such a thread were held back by mq-deadline while anybody else read: a program with
    /// one thread took six times as long beside its own reading ahead.
    #[test]
    fn a_thread_that_runs_when_idle_does_not_read_when_idle() {
        std::thread::spawn(|| {
            let (class, tid) = (|| io_priority(own_thread()) >> IO_CLASS_SHIFT, own_thread());
            let give = |class: i64| {
                // SAFETY: takes and gives numbers only.
                unsafe { libc::syscall(libc::SYS_ioprio_set, IO_WHO_PROCESS, 0, class << IO_CLASS_SHIFT) };
            };
            give(IO_CLASS_NONE);
            run_when_idle();
            assert!(runs_when_idle(tid));
            assert_eq!(class(), IO_CLASS_BEST_EFFORT);
            // As ionice -c 3 does: whoever wants that has it.
            if run_normally(tid).is_ok() {
                give(3);
                run_when_idle();
                assert_eq!(class(), 3);
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_thread_that_runs_when_idle_can_be_put_back_by_whoever_may() {
        std::thread::spawn(|| {
            let tid = own_thread();
            run_when_idle();
            assert!(runs_when_idle(tid));
            match run_normally(tid) {
                Ok(()) => assert!(!runs_when_idle(tid)),
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM)),
            }
        })
        .join()
        .unwrap();
    }
}

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

/// Puts this thread under `SCHED_IDLE`, without `CAP_SYS_NICE` for good. A hint, failure is ignored.
pub fn run_when_idle() {
    let _ = set_policy(0, libc::SCHED_IDLE);
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

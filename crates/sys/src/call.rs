//! Numbers of system calls and of their arguments, for calls that are made or watched in another process. x86-64.

/// `mmap`.
pub const MMAP: i64 = libc::SYS_mmap;
/// `munmap`.
pub const MUNMAP: i64 = libc::SYS_munmap;
/// `mprotect`.
pub const MPROTECT: i64 = libc::SYS_mprotect;
/// `madvise`.
pub const MADVISE: i64 = libc::SYS_madvise;
/// `brk`.
pub const BRK: i64 = libc::SYS_brk;
/// `mremap`.
pub const MREMAP: i64 = libc::SYS_mremap;
/// `clone`.
pub const CLONE: i64 = libc::SYS_clone;
/// `clone3`.
pub const CLONE3: i64 = libc::SYS_clone3;
/// `fork`.
pub const FORK: i64 = libc::SYS_fork;
/// `vfork`.
pub const VFORK: i64 = libc::SYS_vfork;
/// `execve`.
pub const EXECVE: i64 = libc::SYS_execve;
/// `execveat`.
pub const EXECVEAT: i64 = libc::SYS_execveat;
/// `exit`: ends one thread.
pub const EXIT: i64 = libc::SYS_exit;
/// `close`.
pub const CLOSE: i64 = libc::SYS_close;
/// `socketpair`.
pub const SOCKETPAIR: i64 = libc::SYS_socketpair;
/// `getpid`.
pub const GETPID: i64 = libc::SYS_getpid;
/// `set_tid_address`.
pub const SET_TID_ADDRESS: i64 = libc::SYS_set_tid_address;
/// `set_robust_list`.
pub const SET_ROBUST_LIST: i64 = libc::SYS_set_robust_list;
/// `rseq`.
pub const RSEQ: i64 = libc::SYS_rseq;
/// `mlock`.
pub const MLOCK: i64 = libc::SYS_mlock;
/// `mlock2`.
pub const MLOCK2: i64 = libc::SYS_mlock2;
/// `mlockall`.
pub const MLOCKALL: i64 = libc::SYS_mlockall;
/// `unshare`.
pub const UNSHARE: i64 = libc::SYS_unshare;
/// `setns`.
pub const SETNS: i64 = libc::SYS_setns;
/// `setuid`.
pub const SETUID: i64 = libc::SYS_setuid;
/// `setgid`.
pub const SETGID: i64 = libc::SYS_setgid;
/// `setreuid`.
pub const SETREUID: i64 = libc::SYS_setreuid;
/// `setregid`.
pub const SETREGID: i64 = libc::SYS_setregid;
/// `setresuid`.
pub const SETRESUID: i64 = libc::SYS_setresuid;
/// `setresgid`.
pub const SETRESGID: i64 = libc::SYS_setresgid;
/// `setgroups`.
pub const SETGROUPS: i64 = libc::SYS_setgroups;

/// Rights of a mapping: read and write.
pub const READ_WRITE: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;
/// Rights of a mapping: read and execute.
pub const READ_EXECUTE: u64 = (libc::PROT_READ | libc::PROT_EXEC) as u64;
/// The kind of a mapping among its flags, with `MAP_ANONYMOUS`.
pub const MAP_KIND: u64 = 0x2f;
/// A private anonymous mapping.
pub const PRIVATE_ANONYMOUS: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
/// `MAP_POPULATE`.
pub const MAP_POPULATE: u64 = libc::MAP_POPULATE as u64;
/// Most of the mapping may never be touched.
pub const MAP_NORESERVE: u64 = libc::MAP_NORESERVE as u64;
/// The mapping is a thread's stack.
pub const MAP_STACK: u64 = libc::MAP_STACK as u64;
/// Mappings that are left to the kernel: huge pages of the reserved kind, locked ones, and stacks that grow.
pub const MAP_UNUSUAL: u64 = (libc::MAP_HUGETLB | libc::MAP_LOCKED | libc::MAP_GROWSDOWN) as u64;
/// Advice: not in a child.
pub const DONTFORK: u64 = libc::MADV_DONTFORK as u64;
/// Advice: zeroes in a child.
pub const WIPEONFORK: u64 = libc::MADV_WIPEONFORK as u64;
/// Advice: huge pages are welcome.
pub const HUGEPAGE: u64 = libc::MADV_HUGEPAGE as u64;
/// Advice: no huge pages.
pub const NOHUGEPAGE: u64 = libc::MADV_NOHUGEPAGE as u64;
/// Advice: the bytes are of no use any more, whenever it suits the kernel.
pub const FREE: u64 = libc::MADV_FREE as u64;
/// Advice: the bytes are of no use any more.
pub const DONTNEED: u64 = libc::MADV_DONTNEED as u64;
/// Socket family `AF_UNIX`.
pub const UNIX: u64 = libc::AF_UNIX as u64;
/// Sockets that keep messages apart, closed on exec.
pub const PACKETS_CLOEXEC: u64 = (libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC) as u64;

/// Flags of `clone`: the child shares the memory.
pub const CLONE_VM: u64 = libc::CLONE_VM as u64;
/// The child is a thread.
pub const CLONE_THREAD: u64 = libc::CLONE_THREAD as u64;
/// The kernel clears a word when the child ends.
pub const CLONE_CHILD_CLEARTID: u64 = libc::CLONE_CHILD_CLEARTID as u64;
/// The kernel writes the child's number in the child.
pub const CLONE_CHILD_SETTID: u64 = libc::CLONE_CHILD_SETTID as u64;
/// The child cannot be seized at birth.
pub const CLONE_UNTRACED: u64 = libc::CLONE_UNTRACED as u64;
/// The child has a new user namespace.
pub const CLONE_NEWUSER: u64 = libc::CLONE_NEWUSER as u64;
/// The child has a new time namespace (`include/uapi/linux/sched.h`).
pub const CLONE_NEWTIME: u64 = 0x80;
/// A stub: a thread with its own descriptor table and its own working directory.
pub const STUB_CLONE_FLAGS: u64 =
    (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND | libc::CLONE_SYSVSEM) as u64;
/// `SIGCHLD`.
pub const SIGCHLD: u64 = libc::SIGCHLD as u64;

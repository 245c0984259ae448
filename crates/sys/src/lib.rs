//! The one crate with kernel-ABI unsafe: userfaultfd, seccomp, ptrace, pidfd, mappings, direct I/O.

//! The supervisor of vswap run: seccomp notifications, stubs, exec, fork, exit.

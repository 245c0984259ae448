//! A virtual swap space in user space: vswap run, vswap doctor, and regions larger than memory.

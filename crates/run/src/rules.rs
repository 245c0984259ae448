//! Which calls of the tree are seen.
//!
//! Those that make new private memory, make or end processes and threads, name words that the kernel writes when nobody
//! can fault, change users or namespaces. All else passes unseen and costs nothing.

use vswap_sys::call;
use vswap_sys::seccomp::{Condition, Filter, Rule};

const ALWAYS: [i64; 24] = [
    call::MREMAP,
    call::FORK,
    call::VFORK,
    call::CLONE,
    call::CLONE3,
    call::EXECVE,
    call::EXECVEAT,
    call::EXIT,
    call::SET_TID_ADDRESS,
    call::SET_ROBUST_LIST,
    call::RSEQ,
    call::MLOCK,
    call::MLOCK2,
    call::MLOCKALL,
    call::UNSHARE,
    call::SETNS,
    call::SETUID,
    call::SETGID,
    call::SETREUID,
    call::SETREGID,
    call::SETRESUID,
    call::SETRESGID,
    call::SETGROUPS,
    call::BRK,
];

/// The filter of a run.
pub(crate) fn filter(mark: u64) -> Filter {
    // A query for the break changes nothing.
    let changes_break = Condition { argument: 0, mask: u32::MAX, value: 0, negated: true };
    let private_anonymous = Condition {
        argument: 3,
        mask: call::MAP_KIND as u32,
        value: call::PRIVATE_ANONYMOUS as u32,
        negated: false,
    };
    let advice = |value: u64| Rule {
        nr: call::MADVISE,
        mark_argument: 5,
        only_if: Some(Condition { argument: 2, mask: u32::MAX, value: value as u32, negated: false }),
    };
    let mut rules = vec![
        Rule { nr: call::MMAP, mark_argument: 4, only_if: Some(private_anonymous) },
        advice(call::WIPEONFORK),
        advice(call::FREE),
    ];
    rules.extend(ALWAYS.map(|nr| Rule {
        nr,
        mark_argument: 5,
        only_if: (nr == call::BRK).then_some(changes_break),
    }));
    Filter::new(&rules, mark)
}

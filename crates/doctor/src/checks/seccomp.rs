//! Seccomp: may a filter with a listener be installed, and what does that cost setuid programs?

use vswap_sys::probe::{self, NotifyTrial, Obstacle, Trial};

use crate::check::Check;

const EBUSY: i32 = 16;
const CAP_SYS_ADMIN: u64 = 1 << 21;

pub(super) fn check(checks: &mut Vec<Check>) {
    let catch = NotifyTrial::Catch.attempt();
    let works = catch.is_ok();
    checks.push(match catch {
        Ok(()) => Check::good("seccomp.notify", "works"),
        Err(obstacle) => notify_fails(&obstacle),
    });
    if works {
        checks.push(match NotifyTrial::SyncWakeUp.attempt() {
            Ok(()) => Check::good("seccomp.sync_wake_up", "works"),
            Err(obstacle) => Check::warns(
                "seccomp.sync_wake_up",
                obstacle.to_string(),
                "Each mmap of a managed program costs about 39 us more instead of 6.",
            )
            .remedy("Linux 6.6 or later"),
        });
    }
    checks.push(privileges());
}

fn notify_fails(obstacle: &Obstacle) -> Check {
    let name = "seccomp.notify";
    if obstacle.errno() == Some(EBUSY) {
        return Check::fails(
            name,
            "this process is already inside another seccomp listener",
            "There can be one listener in a chain of filters: another `vswap run`, or a container engine that emulates \
             system calls, has it already.",
            "run it outside: leave the surrounding `vswap run` (one limit holds for everything inside it anyway), or\n\
             take the container's seccomp listener away (LXC: lxc.seccomp.notify.proxy; Docker: listenerPath)",
        );
    }
    Check::fails(
        name,
        obstacle.to_string(),
        "vswap run learns of new memory and of forks by it.",
        "a kernel with CONFIG_SECCOMP_FILTER=y, Linux 5.19 or later; in a container: one whose own seccomp profile \
         allows seccomp(2)",
    )
}

/// A filter without `CAP_SYS_ADMIN` needs `no_new_privs`.
fn privileges() -> Check {
    let name = "setuid programs";
    if probe::effective_capabilities() & CAP_SYS_ADMIN != 0 {
        return Check::good(name, "keep their privilege (you have CAP_SYS_ADMIN)");
    }
    Check::note(
        name,
        "run without their privilege",
        "sudo, su, ping and their kind in the tree stay ordinary programs: a filter of an ordinary user needs no_new_privs.",
    )
}

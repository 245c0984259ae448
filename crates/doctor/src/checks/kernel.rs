//! Which kernel this is: shown, not judged by its number.

use vswap_sys::probe;

use super::LEAST_KERNEL;
use crate::check::Check;

pub(super) fn check() -> Check {
    let (release, machine) = probe::kernel_release();
    let found = format!("Linux {release} {machine}");
    if machine != "x86_64" {
        return Check::fails(
            "kernel",
            found,
            "vswap run has code for x86-64 only.",
            "use a machine, or a virtual machine, of that kind",
        );
    }
    Check::good("kernel", format!("{found} (least: {LEAST_KERNEL}; what counts is below)"))
}

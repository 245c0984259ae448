//! Seccomp user notification: a filter that names the calls a supervisor wants to see, and the listener it answers by
//! (`include/uapi/linux/seccomp.h`).
//!
//! Key types: [`Filter`], built of [`Rule`]s; [`Listener`]; [`Notification`]. A call that carries the run's mark in an
//! unused argument passes: it is the supervisor's own, made inside the program.
//!
//! # Safety
//! Every ioctl gets the live structure that its number names; the filter program lives through its installation.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const SECCOMP_SET_MODE_FILTER: libc::c_ulong = 1;
const FLAG_NEW_LISTENER: libc::c_ulong = 1 << 3;
const FLAG_WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;
const RET_ALLOW: u32 = 0x7fff_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const IOCTL_RECV: u64 = 0xc050_2100;
const IOCTL_SEND: u64 = 0xc018_2101;
const IOCTL_ID_VALID: u64 = 0x4008_2102;
const IOCTL_SET_FLAGS: u64 = 0x4008_2104;
const SYNC_WAKE_UP: u64 = 1;
const RESP_CONTINUE: u32 = 1;

const LOAD_WORD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_AT_LEAST: u16 = 0x35;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

/// One instruction: `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    value: u32,
}

const fn instruction(code: u16, value: u32) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: 0, value }
}

/// What a jump over so many instructions is written as.
fn distance(instructions: usize) -> u8 {
    u8::try_from(instructions).expect("a filter is short enough for its jumps")
}

const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;

/// Offset of the low half of an argument in `struct seccomp_data`.
const fn offset_argument(index: u8) -> u32 {
    16 + 8 * index as u32
}

/// A call to be notified.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its number.
    pub nr: i64,
    /// The argument that the supervisor's own calls carry the mark in.
    pub mark_argument: u8,
    /// Notified only if an argument, masked, has a value.
    pub only_if: Option<Condition>,
}

/// `argument & mask == value`, or its opposite; the low 32 bits only.
#[derive(Clone, Copy, Debug)]
pub struct Condition {
    /// Index of the argument.
    pub argument: u8,
    /// Bits looked at.
    pub mask: u32,
    /// What they have to be.
    pub value: u32,
    /// The condition is met if they are not.
    pub negated: bool,
}

/// A filter: x86-64 calls that a rule names are notified, all else (32-bit calls too) passes.
#[derive(Clone, Debug)]
pub struct Filter(Vec<Instruction>);

/// Calls that are told apart one after the other; more of them are halved first.
const IN_A_ROW: usize = 3;

impl Filter {
    /// Builds the filter for `rules` and the run's `mark`.
    ///
    /// It decides by halving the numbers: the kernel runs it once for each call that there is when it is installed, to learn
    /// which pass whatever their arguments (`seccomp_cache_prepare`), and then for each call of which that cannot be said.
    ///
    /// # Panics
    /// If there are so many different rules that a jump of the kernel's machine, 255 instructions, does not span them.
    pub fn new(rules: &[Rule], mark: u64) -> Filter {
        let mut code = vec![
            instruction(LOAD_WORD, OFFSET_ARCH),
            Instruction { jump_true: 1, ..instruction(JUMP_EQUAL, AUDIT_ARCH_X86_64) },
            instruction(RETURN, RET_ALLOW),
            instruction(LOAD_WORD, OFFSET_NR),
        ];
        let mut blocks: Vec<Vec<Instruction>> = Vec::new();
        let mut numbers: Vec<i64> = rules.iter().map(|rule| rule.nr).collect();
        numbers.sort_unstable();
        numbers.dedup();
        // What is to be done for a number, as an index into `blocks`: most rules do the same.
        let cases: Vec<(u32, usize)> = numbers
            .into_iter()
            .map(|nr| {
                let block: Vec<_> = rules
                    .iter()
                    .filter(|rule| rule.nr == nr)
                    .flat_map(|rule| Self::block(rule, mark))
                    .collect();
                let known = blocks.iter().position(|other| *other == block);
                (
                    nr as u32,
                    known.unwrap_or_else(|| {
                        blocks.push(block);
                        blocks.len() - 1
                    }),
                )
            })
            .collect();
        let mut jumps = Vec::new();
        Self::decide(&cases, &mut code, &mut jumps);
        let mut starts = Vec::new();
        for block in blocks {
            starts.push(code.len());
            code.extend(block);
            code.push(instruction(RETURN, RET_ALLOW));
        }
        for (at, block) in jumps {
            code[at].jump_true = distance(starts[block] - at - 1);
        }
        Filter(code)
    }

    /// Emits the choice between `cases` by the number that was loaded; notes which jumps go to which block.
    fn decide(cases: &[(u32, usize)], code: &mut Vec<Instruction>, jumps: &mut Vec<(usize, usize)>) {
        if cases.len() > IN_A_ROW {
            let (low, high) = cases.split_at(cases.len() / 2);
            let at = code.len();
            code.push(instruction(JUMP_AT_LEAST, high[0].0));
            Self::decide(low, code, jumps);
            code[at].jump_true = distance(code.len() - at - 1);
            return Self::decide(high, code, jumps);
        }
        for &(nr, block) in cases {
            jumps.push((code.len(), block));
            code.push(instruction(JUMP_EQUAL, nr));
        }
        code.push(instruction(RETURN, RET_ALLOW));
    }

    /// What is done for a call that `rule` names; goes on after its end if the rule does not apply.
    fn block(rule: &Rule, mark: u64) -> Vec<Instruction> {
        let mut block = Vec::new();
        if let Some(condition) = rule.only_if {
            // Unmet: past the six instructions below, to the next rule for the same call.
            let (jump_true, jump_false) = if condition.negated { (6, 0) } else { (0, 6) };
            block.push(instruction(LOAD_WORD, offset_argument(condition.argument)));
            block.push(instruction(AND, condition.mask));
            block.push(Instruction { jump_true, jump_false, ..instruction(JUMP_EQUAL, condition.value) });
        }
        let at = offset_argument(rule.mark_argument);
        block.push(instruction(LOAD_WORD, at));
        block.push(Instruction { jump_false: 3, ..instruction(JUMP_EQUAL, mark as u32) });
        block.push(instruction(LOAD_WORD, at + 4));
        block.push(Instruction { jump_false: 1, ..instruction(JUMP_EQUAL, (mark >> 32) as u32) });
        block.push(instruction(RETURN, RET_ALLOW));
        block.push(instruction(RETURN, RET_USER_NOTIF));
        block
    }

    /// Installs the filter on the calling thread and all that it will ever start; returns its listener.
    ///
    /// Without the right to do so (`CAP_SYS_ADMIN`), it sets `no_new_privs` first. Allocates nothing: fit for a child
    /// between fork and exec.
    ///
    /// # Errors
    /// `EBUSY` if the caller lives under another listener already; what `seccomp(2)` says otherwise.
    pub fn install(&self) -> io::Result<Listener> {
        match self.try_install() {
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
                // SAFETY: no pointers.
                unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
                self.try_install()
            }
            result => result,
        }
    }

    fn try_install(&self) -> io::Result<Listener> {
        let program =
            libc::sock_fprog { len: self.0.len() as u16, filter: self.0.as_ptr().cast_mut().cast() };
        // SAFETY: `program` describes the live vector, whose elements have the layout of `sock_filter`; the kernel
        // copies it.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                SECCOMP_SET_MODE_FILTER,
                FLAG_NEW_LISTENER | FLAG_WAIT_KILLABLE_RECV,
                &raw const program,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else knows.
        Ok(Listener(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }
}

/// A call that waits for an answer: `struct seccomp_notif`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Notification {
    /// Names the call in the answer.
    pub id: u64,
    /// The thread, as this process numbers it; 0 if it cannot see it.
    pub tid: u32,
    flags: u32,
    /// Number of the call.
    pub nr: i32,
    /// `AUDIT_ARCH_*` of it.
    pub arch: u32,
    /// Address after the `syscall` instruction.
    pub instruction_pointer: u64,
    /// Its arguments.
    pub args: [u64; 6],
}

#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

const _: () = assert!(size_of::<Notification>() == 80);
const _: () = assert!(size_of::<Response>() == 24);

/// Where notifications are read and answered.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Takes over a descriptor received from the process that installed the filter.
    pub fn from_fd(fd: OwnedFd) -> Listener {
        Listener(fd)
    }

    fn ioctl<T>(&self, nr: u64, value: *mut T) -> io::Result<()> {
        // SAFETY: private; each caller passes the live structure that `nr` names.
        let n = unsafe { libc::ioctl(self.0.as_raw_fd(), nr as libc::Ioctl, value) };
        if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Wakes the caller and the supervisor on each other's CPU (Linux 6.6): a notification then costs a switch.
    ///
    /// # Errors
    /// `EINVAL` on older kernels.
    pub fn wake_synchronously(&self) -> io::Result<()> {
        // SAFETY: the argument is a value here.
        let n = unsafe { libc::ioctl(self.0.as_raw_fd(), IOCTL_SET_FLAGS as libc::Ioctl, SYNC_WAKE_UP) };
        if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits for the next notification.
    ///
    /// # Errors
    /// `ENOENT` if the caller was killed meanwhile or `EINTR`: try again. After the last process has gone it says
    /// `ENOENT` at once; poll for a hang-up.
    pub fn receive(&self) -> io::Result<Notification> {
        let mut notification = Notification::default();
        self.ioctl(IOCTL_RECV, &raw mut notification)?;
        Ok(notification)
    }

    fn respond(&self, id: u64, value: i64, error: i32, flags: u32) -> io::Result<()> {
        let mut response = Response { id, value, error, flags };
        self.ioctl(IOCTL_SEND, &raw mut response)
    }

    /// Lets the kernel execute the call as it is.
    ///
    /// # Errors
    /// `ENOENT` if the caller is gone.
    pub fn proceed(&self, id: u64) -> io::Result<()> {
        self.respond(id, 0, 0, RESP_CONTINUE)
    }

    /// Answers the call with what a kernel would return: a value, or a negative errno.
    ///
    /// # Errors
    /// `ENOENT` if the caller is gone.
    pub fn answer(&self, id: u64, result: i64) -> io::Result<()> {
        if (-4095..0).contains(&result) {
            self.respond(id, 0, result as i32, 0)
        } else {
            self.respond(id, result, 0, 0)
        }
    }

    /// Tells whether the caller still waits, so that what was learnt of its thread is about that thread.
    pub fn still_waits(&self, id: u64) -> bool {
        let mut id = id;
        self.ioctl(IOCTL_ID_VALID, &raw mut id).is_ok()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Listener> for OwnedFd {
    fn from(listener: Listener) -> OwnedFd {
        listener.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a filter as the kernel would.
    fn run(filter: &Filter, nr: u32, arch: u32, args: [u64; 6]) -> u32 {
        let mut data = vec![nr, arch, 0, 0];
        data.extend(args.iter().flat_map(|&a| [a as u32, (a >> 32) as u32]));
        let (mut at, mut acc) = (0, 0u32);
        loop {
            let i = filter.0[at];
            at += 1;
            match i.code {
                LOAD_WORD => acc = data[i.value as usize / 4],
                AND => acc &= i.value,
                JUMP_EQUAL | JUMP_AT_LEAST => {
                    let met = if i.code == JUMP_EQUAL { acc == i.value } else { acc >= i.value };
                    at += usize::from(if met { i.jump_true } else { i.jump_false });
                }
                RETURN => return i.value,
                code => panic!("unknown instruction {code:#x}"),
            }
        }
    }

    const MARK: u64 = 0x1234_5678_9abc_def0;

    fn filter() -> Filter {
        let private_anonymous = Condition { argument: 3, mask: 0x2f, value: 0x22, negated: false };
        let query = Condition { argument: 0, mask: u32::MAX, value: 0, negated: true };
        Filter::new(
            &[
                Rule { nr: 9, mark_argument: 4, only_if: Some(private_anonymous) },
                Rule { nr: 12, mark_argument: 5, only_if: Some(query) },
                Rule { nr: 57, mark_argument: 5, only_if: None },
            ],
            MARK,
        )
    }

    #[test]
    fn only_named_calls_are_notified() {
        let f = filter();
        assert_eq!(run(&f, 57, AUDIT_ARCH_X86_64, [0; 6]), RET_USER_NOTIF);
        assert_eq!(run(&f, 58, AUDIT_ARCH_X86_64, [0; 6]), RET_ALLOW);
        assert_eq!(run(&f, 9, AUDIT_ARCH_X86_64, [0, 1, 3, 0x4022, 0, 0]), RET_USER_NOTIF);
        assert_eq!(run(&f, 9, AUDIT_ARCH_X86_64, [0, 1, 3, 0x21, 0, 0]), RET_ALLOW);
        assert_eq!(run(&f, 9, AUDIT_ARCH_X86_64, [0, 1, 3, 2, 3, 0]), RET_ALLOW);
        assert_eq!(run(&f, 12, AUDIT_ARCH_X86_64, [0; 6]), RET_ALLOW);
        assert_eq!(run(&f, 12, AUDIT_ARCH_X86_64, [7, 0, 0, 0, 0, 0]), RET_USER_NOTIF);
    }

    #[test]
    fn each_of_many_rules_decides_its_own_call_and_no_other() {
        let odd = |nr: i64| Rule { nr, mark_argument: 5, only_if: None };
        let value = |value| Condition { argument: 2, mask: u32::MAX, value, negated: false };
        let mut rules: Vec<Rule> = (0..30).map(|n| odd(2 * n + 1)).collect();
        // Two rules for one call, far apart.
        rules.insert(3, Rule { nr: 28, mark_argument: 5, only_if: Some(value(8)) });
        rules.push(Rule { nr: 28, mark_argument: 5, only_if: Some(value(18)) });
        let f = Filter::new(&rules, MARK);
        for nr in 0..500 {
            let named = nr < 60 && nr % 2 == 1;
            assert_eq!(run(&f, nr, AUDIT_ARCH_X86_64, [0; 6]) == RET_USER_NOTIF, named, "call {nr}");
        }
        for advice in 0..20 {
            let told = run(&f, 28, AUDIT_ARCH_X86_64, [0, 0, advice, 0, 0, 0]) == RET_USER_NOTIF;
            assert_eq!(told, advice == 8 || advice == 18, "advice {advice}");
        }
        let ours = run(&f, 28, AUDIT_ARCH_X86_64, [0, 0, 18, 0, 0, MARK]);
        assert_eq!(ours, RET_ALLOW);
    }

    #[test]
    fn thirty_two_bit_calls_pass_whatever_their_number() {
        assert_eq!(run(&filter(), 57, 0x4000_0003, [0; 6]), RET_ALLOW);
    }

    #[test]
    fn the_whole_mark_is_needed_to_pass() {
        let f = filter();
        assert_eq!(run(&f, 57, AUDIT_ARCH_X86_64, [0, 0, 0, 0, 0, MARK]), RET_ALLOW);
        assert_eq!(run(&f, 9, AUDIT_ARCH_X86_64, [0, 1, 3, 0x22, MARK, 0]), RET_ALLOW);
        for half in [MARK & 0xffff_ffff, MARK >> 32 << 32] {
            assert_eq!(run(&f, 57, AUDIT_ARCH_X86_64, [0, 0, 0, 0, 0, half]), RET_USER_NOTIF);
        }
    }
}

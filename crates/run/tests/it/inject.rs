//! A stub in a program that knows nothing of it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::SeqCst;

use vswap_run::{Gifts, Stub, inject};
use vswap_stub::protocol::{RING_BYTES, RING_LEN, Ring, op};
use vswap_sys::mapping::SharedMemory;
use vswap_sys::ptrace::{Stop, Tracee};
use vswap_sys::{call, futex, process};

/// A ring's client that waits by looking.
struct Client(SharedMemory);

impl Client {
    fn call(&self, nr: i64, args: [u64; 6]) -> i64 {
        let ring = self.0.view::<Ring>();
        let at = ring.posted.load(SeqCst);
        let command = &ring.commands[(at % RING_LEN) as usize];
        command.op.store(op::SYSCALL, SeqCst);
        command.nr.store(nr as u32, SeqCst);
        for (cell, value) in command.args.iter().zip(args) {
            cell.store(value, SeqCst);
        }
        ring.posted.store(at + 1, SeqCst);
        futex::wake(&ring.posted, 1);
        while ring.done.load(SeqCst) == at {
            std::thread::yield_now();
        }
        command.result.load(SeqCst)
    }
}

fn give_stub(pid: i32) -> (Stub, Client) {
    let memory = SharedMemory::new(c"ring", RING_BYTES).unwrap();
    let mut tracee = Tracee::seize(pid, 0).unwrap();
    tracee.interrupt().unwrap();
    assert_eq!(tracee.wait().unwrap(), Stop::Rest);
    let (stub, _uffd) =
        inject(&mut tracee, pid, Gifts { mark: 77, ring: memory.fd(), device: None }).unwrap();
    tracee.detach(0).unwrap();
    (stub, Client(memory))
}

fn start(program: &str, args: &[&str]) -> Child {
    let child =
        Command::new(program).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Until it waits for us in its own code.
    while !std::fs::read_to_string(format!("/proc/{}/wchan", child.id())).is_ok_and(|w| w.len() > 1) {
        std::thread::yield_now();
    }
    child
}

#[test]
fn a_sleeping_program_sleeps_on_and_ends_as_it_would() {
    let mut child = start("sleep", &["0.7"]);
    let pid = child.id() as i32;
    let (stub, client) = give_stub(pid);
    assert_eq!(client.call(call::GETPID, [0; 6]), i64::from(pid));
    assert!(!stub.thread.has_ended());
    assert!(child.wait().unwrap().success());
    assert!(stub.thread.wait_end(1000));
}

#[test]
fn a_read_that_was_interrupted_goes_on() {
    let mut child = start("cat", &[]);
    let pid = child.id() as i32;
    let (_stub, client) = give_stub(pid);
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    input.write_all(b"after the stub\n").unwrap();
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "after the stub\n");
    assert_eq!(client.call(call::GETPID, [0; 6]), i64::from(pid));
    // The stub holds no end of the pipes: the program sees the end of its input, and we that of its output.
    drop(input);
    assert!(child.wait().unwrap().success());
    assert_eq!(output.read_line(&mut line).unwrap(), 0);
}

#[test]
fn a_program_ends_when_its_supervisor_does() {
    let mut child = start("sleep", &["100"]);
    let (stub, _client) = give_stub(child.id() as i32);
    drop(stub.socket);
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

#[test]
fn no_descriptor_of_ours_stays_in_the_program() {
    let mut child = start("cat", &[]);
    let pid = child.id();
    let fds = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let before = fds();
    let (stub, _client) = give_stub(pid as i32);
    assert_eq!(fds(), before);
    let tasks = process::threads(pid as i32).unwrap();
    assert_eq!(tasks.len(), 2);
    assert!(tasks.contains(&stub.tid));
    let stub_fds = std::fs::read_dir(format!("/proc/{pid}/task/{}/fd", stub.tid)).unwrap().count();
    assert_eq!(stub_fds, 3, "socket and two userfaultfds");
    child.kill().unwrap();
    child.wait().unwrap();
}

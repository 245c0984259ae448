//! Server and client over a real socket.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vswap_control::protocol::{Answer, Group, LONGEST, NewTier, Removed, Request, Status, Tier};
use vswap_control::{Client, ClientError, Controlled, Run, Server};

/// Tier 1 takes for ever to empty, tier 2 three steps; there is no other.
#[derive(Default)]
struct Fake {
    steps: AtomicU64,
    cancelled: AtomicU64,
    /// Groups besides the root.
    groups: AtomicU64,
}

impl Controlled for Fake {
    fn status(&self) -> Status {
        let tiers = vec![Tier { tier: 1, priority: -1, ..Tier::default() }];
        Status { pid: 42, program: "fake".into(), tiers, ..Status::default() }
    }

    fn add_tier(&self, new: &NewTier) -> Result<u8, String> {
        match new {
            NewTier { path, size: Some(size), priority: 7, force: true, kind: Some(kind) }
                if path.is_absolute() && kind == "device" =>
            {
                Ok(*size as u8)
            }
            _ => Err(format!("{} will not do", new.path.display())),
        }
    }

    fn remove_tier(
        &self,
        tier: u8,
        lose: bool,
        watch: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<Removed, String> {
        let last = if tier == 1 { u64::MAX } else { 3 };
        for step in 0..last {
            self.steps.fetch_add(1, Ordering::Relaxed);
            if watch(step, last - step).is_break() {
                self.cancelled.fetch_add(1, Ordering::Relaxed);
                return Err("cancelled".into());
            }
        }
        Ok(Removed { segments: last, bytes: 2 * last, pooled: 2, lost: u64::from(lose) })
    }

    fn reopen_tier(&self, tier: u8) -> Result<(), String> {
        if tier == 1 { Ok(()) } else { Err(format!("there is no tier {tier}")) }
    }

    fn groups(&self) -> Vec<Group> {
        let root = Group { path: "/".into(), memory: 4096, ..Group::default() };
        let name = "n".repeat(255);
        let others = (0..self.groups.load(Ordering::Relaxed))
            .map(|number| Group { path: format!("/{name}/{number}"), ..Group::default() });
        [root].into_iter().chain(others).collect()
    }

    fn add_group(&self, path: &str) -> Result<(), String> {
        if path == "/web" { Ok(()) } else { Err(format!("not {path}")) }
    }

    fn remove_group(&self, path: &str) -> Result<(), String> {
        self.add_group(path)
    }

    fn move_process(&self, pid: i32, path: &str) -> Result<(), String> {
        if pid == 7 { self.add_group(path) } else { Err(format!("no {pid}")) }
    }

    fn set_group(&self, path: &str, limits: &BTreeMap<String, Option<u64>>) -> Result<(), String> {
        if limits["memory.max"] == Some(9) && limits["memory.swap.max"].is_none() {
            return self.add_group(path);
        }
        Err(format!("{limits:?}"))
    }
}

fn me() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn served() -> (tempfile::TempDir, Arc<Fake>, Server) {
    let dir = tempfile::tempdir().unwrap();
    let fake = Arc::new(Fake::default());
    let server = Server::listen(dir.path().join("42.sock"), Arc::clone(&fake) as _).unwrap();
    (dir, fake, server)
}

#[test]
fn questions_are_answered_one_after_the_other() {
    let (_dir, _, server) = served();
    let mut client = Client::connect(server.path(), me()).unwrap();
    assert_eq!(client.status().unwrap().tiers[0].priority, -1);
    let kind = || Some("device".into());
    let new =
        |path: &str| NewTier { path: path.into(), kind: kind(), size: Some(9), priority: 7, force: true };
    let add = |path: &str| Request::AddTier(new(path));
    let mut ask = |request: &Request| client.ask(request, &mut |_, _| panic!("nothing is emptied"));
    assert_eq!(ask(&add("/mnt")).unwrap(), Answer::Added { tier: 9 });
    let refused = ask(&add("mnt")).unwrap_err();
    assert!(matches!(&refused, ClientError::Refused(why) if why == "mnt will not do"), "{refused}");
    assert_eq!(ask(&Request::ReopenTier { tier: 1 }).unwrap(), Answer::Done);
    assert!(ask(&Request::ReopenTier { tier: 2 }).is_err());
    let path = || "/web".to_owned();
    assert!(matches!(ask(&Request::Groups).unwrap(), Answer::Groups { groups } if groups[0].memory == 4096));
    assert_eq!(ask(&Request::AddGroup { path: path() }).unwrap(), Answer::Done);
    assert!(ask(&Request::RemoveGroup { path: "/x".into() }).is_err());
    assert_eq!(ask(&Request::MoveProcess { pid: 7, path: path() }).unwrap(), Answer::Done);
    let limits = [("memory.max".to_owned(), Some(9)), ("memory.swap.max".to_owned(), None)].into();
    assert_eq!(ask(&Request::SetGroup { path: path(), limits }).unwrap(), Answer::Done);
    let mut seen = Vec::new();
    let remove = Request::RemoveTier { tier: 2, lose: true };
    let removed = client.ask(&remove, &mut |moved, left| seen.push((moved, left))).unwrap();
    assert_eq!(removed, Answer::Removed(Removed { segments: 3, bytes: 6, pooled: 2, lost: 1 }));
    assert_eq!(seen, [(0, 3), (1, 2), (2, 1)]);
}

/// From a thousand groups on the answer was longer than what was read of it.
#[test]
fn an_answer_may_be_longer_than_a_question() {
    let (_dir, fake, server) = served();
    fake.groups.store(4_000, Ordering::Relaxed);
    let mut client = Client::connect(server.path(), me()).unwrap();
    let answer = client.ask(&Request::Groups, &mut |_, _| {}).unwrap();
    assert!(serde_json::to_string(&answer).unwrap().len() > LONGEST);
    assert!(matches!(answer, Answer::Groups { groups } if groups.len() == 4_001));
    assert_eq!(client.status().unwrap().pid, 42, "nothing of it is left over");
}

#[test]
fn a_removal_ends_when_its_caller_goes_away() {
    let (_dir, fake, server) = served();
    let mut caller = UnixStream::connect(server.path()).unwrap();
    caller.write_all(b"{\"do\":\"remove-tier\",\"tier\":1}\n").unwrap();
    let mut some = [0; 100];
    caller.read_exact(&mut some).unwrap();
    drop(caller);
    while fake.cancelled.load(Ordering::Relaxed) == 0 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let steps = fake.steps.load(Ordering::Relaxed);
    Client::connect(server.path(), me()).unwrap().status().unwrap();
    assert_eq!(fake.steps.load(Ordering::Relaxed), steps, "it has ended");
}

#[test]
fn nonsense_is_refused_and_harms_nobody_else() {
    let (_dir, _, server) = served();
    let long = vec![b'x'; LONGEST + 10];
    for words in [b"hello\n".as_slice(), b"{\"do\":\"dance\"}\n", b"\xff\xfe\n", b"{}\n", b"[", &long] {
        let mut caller = UnixStream::connect(server.path()).unwrap();
        // It may have hung up in the middle of what is too long.
        let _ = caller.write_all(words);
        let _ = caller.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = caller.read_to_end(&mut answer);
        if words.len() < LONGEST {
            let text = String::from_utf8(answer).unwrap();
            assert!(text.contains("refused") && text.contains("not understood"), "{text}");
        }
    }
    assert_eq!(Client::connect(server.path(), me()).unwrap().status().unwrap().pid, 42);
}

#[test]
fn a_socket_goes_with_its_server_and_nobody_answers_then() {
    let (_dir, _, server) = served();
    let path = server.path().to_owned();
    drop(server);
    assert!(!path.exists());
    assert!(matches!(Client::connect(&path, me()).unwrap_err(), ClientError::Io { .. }));
}

#[test]
fn one_is_chosen_by_number_or_program_and_a_doubt_is_said() {
    let run = |pid, program: &str| Run {
        path: PathBuf::new(),
        owner: me(),
        status: Status { pid, program: program.into(), ..Status::default() },
    };
    let runs = || vec![run(10, "sort"), run(11, "python3"), run(12, "sort")];
    let chosen = |wanted| Run::choose(runs(), wanted).map(|run| run.status.pid);
    assert_eq!(chosen(Some("11")).unwrap(), 11);
    assert_eq!(chosen(Some("python3")).unwrap(), 11);
    let several = chosen(Some("sort")).unwrap_err().to_string();
    assert!(several.contains("10 (sort)") && several.contains("12 (sort)"), "{several}");
    assert!(matches!(chosen(None), Err(ClientError::Several { .. })));
    assert!(matches!(chosen(Some("13")), Err(ClientError::NotFound { .. })));
    assert!(matches!(Run::choose(Vec::new(), None), Err(ClientError::NoneRuns)));
    assert_eq!(Run::choose(vec![run(3, "a")], None).unwrap().status.pid, 3);
}

#[test]
fn a_socket_that_is_answered_is_not_taken_over_and_one_that_is_not_is() {
    let (_dir, fake, server) = served();
    let error = Server::listen(server.path().to_owned(), Arc::clone(&fake) as _).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    let path = server.path().to_owned();
    drop(server);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "nobody listens there");
    let server = Server::listen(path, fake as _).unwrap();
    assert_eq!(Client::connect(server.path(), me()).unwrap().status().unwrap().pid, 42);
}

#[test]
fn other_users_are_neither_answered_nor_believed() {
    let (dir, _, server) = served();
    if me() != 0 {
        return println!("skipped: needs root, to be somebody else");
    }
    let error = Client::connect(server.path(), 12345);
    assert!(error.is_ok(), "root is believed: it could be anybody");
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(dir.path(), std::fs::Permissions::clone(&everybody)).unwrap();
    std::fs::set_permissions(server.path(), everybody).unwrap();
    let ask =
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.recv(999))";
    let mut other = std::process::Command::new("/usr/bin/python3");
    std::os::unix::process::CommandExt::uid(&mut other, 65534);
    let said = other.args(["-c", ask]).arg(server.path()).output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(said.contains("another user") && !said.contains("fake"), "{said}");
}

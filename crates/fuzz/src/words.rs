//! Text: the control socket's lines, sizes as people type them, the kernel's lists of mappings; and recorded faults.

use std::fmt::Write as _;
use vswap_control::protocol::{Answer, NewTier, Removed, Request, Status, Tier};
use vswap_core::recording::{Coder, LONGEST, Recorded, Why};
use vswap_sys::process::{MapEntry, parse_maps};

// The command's own, which is no library.
#[path = "../../vswap/src/bin/vswap/size.rs"]
mod size;

/// A line is read as a request and as an answer: what is read is one line when it is written, and means the same.
pub fn control(data: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(data) {
        let line = serde_json::to_vec(&request).expect("it came from text");
        assert!(!line.contains(&b'\n'), "two lines: {request:?}");
        assert_eq!(serde_json::from_slice::<Request>(&line).expect("it was written so"), request);
    }
    if let Ok(answer) = serde_json::from_slice::<Answer>(data) {
        let line = serde_json::to_vec(&answer).expect("it came from text");
        assert!(!line.contains(&b'\n'), "two lines: {answer:?}");
        assert_eq!(serde_json::from_slice::<Answer>(&line).expect("it was written so"), answer);
    }
}

pub(crate) fn control_seeds() -> Vec<Vec<u8>> {
    let path = String::from("/a/b");
    let requests = [
        Request::Status,
        Request::AddTier(NewTier {
            path: "/mnt/ssd".into(),
            kind: Some("device".into()),
            size: Some(1 << 30),
            priority: -1,
            force: true,
        }),
        Request::RemoveTier { tier: 3, lose: true },
        Request::ReopenTier { tier: 1 },
        Request::Groups,
        Request::AddGroup { path: path.clone() },
        Request::MoveProcess { pid: 77, path: path.clone() },
        Request::SetGroup {
            path,
            limits: [("memory.max".into(), Some(1 << 20)), ("memory.swap.max".into(), None)].into(),
        },
    ];
    let status =
        Status { program: "a \"program\"".into(), tiers: vec![Tier::default()], ..Status::default() };
    let answers = [
        Answer::Status(Box::new(status)),
        Answer::Added { tier: 2 },
        Answer::Emptying { moved: 1, left: u64::MAX },
        Answer::Removed(Removed { segments: 1, bytes: 2, pooled: 3, lost: 4 }),
        Answer::Groups { groups: vec![vswap_control::protocol::Group::default()] },
        Answer::Done,
        Answer::Refused { why: "no\nroom".into() },
    ];
    let requests = requests.iter().map(serde_json::to_vec);
    requests.chain(answers.iter().map(serde_json::to_vec)).map(|line| line.expect("plain text")).collect()
}

/// Recorded faults: each that is read is read again as the same when it is written, in no more bytes, and where none can be read nothing is.
pub fn recording(data: &[u8]) {
    let (mut reader, mut writer, mut again) = (Coder::default(), Coder::default(), Coder::default());
    let mut rest = data;
    while !rest.is_empty() {
        let before = format!("{reader:?}");
        let Ok((fault, taken)) = reader.read(rest) else {
            assert_eq!(format!("{reader:?}"), before);
            break;
        };
        assert!(taken > 0 && taken <= rest.len());
        let mut bytes = [0; LONGEST];
        let written = writer.write(fault, &mut bytes);
        assert!(written <= taken, "{fault:?} in {written} bytes, read from {taken}");
        assert_eq!(again.read(&bytes[..written]), Ok((fault, written)));
        rest = &rest[taken..];
    }
}

pub(crate) fn recording_seeds() -> Vec<Vec<u8>> {
    let mut coder = Coder::default();
    let mut all = Vec::new();
    for (page, space, why) in
        [(5, 0, Why::First), (6, 0, Why::Out), (1 << 40, 3, Why::Write), (2, u32::MAX, Why::Staged)]
    {
        let mut bytes = [0; LONGEST];
        let written = coder.write(Recorded { page, space, why }, &mut bytes);
        all.extend_from_slice(&bytes[..written]);
    }
    vec![all]
}

/// Text is read as a size: the number is the one that was written, what is shown is read back, and an error is short and plain.
pub fn sizes(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match size::parse(&text) {
        Ok(bytes) => {
            let shown = size::show(bytes);
            assert_eq!(size::parse(shown.trim_end_matches(" bytes")), Ok(bytes), "{shown}");
            assert!(
                expected(&text).is_none_or(|expected| expected == Some(bytes)),
                "{text:?} is not {bytes}"
            );
        }
        Err(error) => {
            let said = error.to_string();
            assert!(said.len() < 2000 && !said.contains(char::is_control), "{said:?}");
            assert!(expected(&text).is_none_or(|expected| expected.is_none()), "{text:?}: {said}");
        }
    }
}

/// Whole numbers of a unit, worked out in another way: the number, or that it is none. `None` for what is written in other ways.
fn expected(text: &str) -> Option<Option<u64>> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 || digits > 30 {
        return None;
    }
    let number: u128 = text[..digits].parse().ok()?;
    let unit = text[digits..].to_lowercase();
    let power = "kmgtpe".find(unit.chars().next().unwrap_or('b')).map_or(0, |at| at as u32 + 1);
    let base = match unit.get(power.min(1) as usize..)? {
        "" | "ib" if power > 0 => 1024_u128,
        "b" if power > 0 => 1000,
        "" | "b" => 1,
        _ => return None,
    };
    Some(number.checked_mul(base.pow(power)).and_then(|bytes| bytes.try_into().ok()))
}

pub(crate) fn sizes_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "512M",
        "1.5GiB",
        "100MB",
        ".5g",
        "8388608B",
        " 1 GiB ",
        "0",
        "18446744073709551615",
        "15.999999999999999999E",
        "16E",
        "1.2.3M",
        "12\u{202e}M",
        "0000000000000000000000000000016K",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// As the kernel writes it (`show_map_vma` of `fs/proc/task_mmu.c`).
fn written(entries: &[MapEntry]) -> String {
    let mut text = String::new();
    for MapEntry { range, rights, private, file, name } in entries {
        let mark = |at: usize, letter| if rights[at] { letter } else { '-' };
        let rights: String = [mark(0, 'r'), mark(1, 'w'), mark(2, 'x')].into_iter().collect();
        let (shared, inode) = (if *private { 'p' } else { 's' }, u8::from(*file));
        let (start, end) = (range.start, range.end);
        let line = format!("{start:08x}-{end:08x} {rights}{shared} 00000000 00:00 {inode} ");
        writeln!(text, "{line:<73}{name}").expect("memory");
    }
    text
}

/// Text is read as a list of mappings: each has addresses, and written as the kernel does they are the same.
pub fn maps(data: &[u8]) {
    let Some(entries) = parse_maps(data) else { return };
    for entry in &entries {
        assert!(entry.range.start < entry.range.end, "{entry:?}");
    }
    assert_eq!(parse_maps(written(&entries).as_bytes()), Some(entries));
}

pub(crate) fn maps_seeds() -> Vec<Vec<u8>> {
    let lines = [
        "55d0c8a00000-55d0c8a02000 r--p 00000000 fe:00 1311                       /usr/bin/cat",
        "55d0c9b3d000-55d0c9b5e000 rw-p 00000000 00:00 0                          [heap]",
        "7f0a4c000000-7f0a4c021000 rw-p 00000000 00:00 0 ",
        "7f0a50a00000-7f0a50a01000 rw-s 00001000 00:01 2063                       /memfd:a b\\012 (deleted)",
        "7ffd5e1c0000-7ffd5e1e1000 rw-p 00000000 00:00 0                          [stack]",
        "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]",
    ];
    let mut seeds: Vec<Vec<u8>> = lines.iter().map(|line| format!("{line}\n").into_bytes()).collect();
    seeds.push(lines.join("\n").into_bytes());
    seeds
}

/// Bytes are read as a message between the processes of a run: what was read can be sent on, and is the same then.
pub fn message(data: &[u8]) {
    vswap_run::fuzz::message_is_sent_as_received(data);
}

/// A text is read as the state of a setup: an undo of it does nothing that a setup cannot have done.
pub fn setup_state(data: &[u8]) {
    vswap_doctor::fuzz::state_is_written_as_read(&String::from_utf8_lossy(data));
}

pub(crate) fn setup_state_seeds() -> Vec<Vec<u8>> {
    let whole = "# Made by `vswap setup`\ndevice 0600 0 7\ngroup vswap\nmember ann vswap\n\
        directory /etc/udev\nfile /etc/udev/rules.d/60-vswap-userfaultfd.rules\n";
    let lines = [
        "",
        "group -r\n",
        "member ann -G\n",
        "file /../x\n",
        "directory /\n",
        "file /etc/\u{1b}[2J\n",
        "device 10000 0 0\n",
    ];
    [whole].iter().chain(&lines).map(|text| text.as_bytes().to_vec()).collect()
}

//! What the processes of one run tell each other: the front (which the user started), the engine, the keeper (the
//! program's parent) and the program before its exec.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use vswap_sys::process::Change;
use vswap_sys::scm;

/// The longest message.
pub(crate) const LONGEST: usize = 16 << 10;
/// Kind and value, which most messages are.
const HEAD: usize = 5;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// Program to engine, with the listener: my number.
    Installed(i32),
    /// Program to engine: the filter could not be installed (errno).
    NotInstalled(i32),
    /// Program to engine and front: it could not be executed (errno).
    NotExecuted(i32),
    /// The program's parent to engine and front: it has changed.
    Changed(Change),
    /// Engine to front: the program's number.
    Program(i32),
    /// Keeper to front: the same, but it may not be taken on yet.
    Keeps(i32),
    /// Engine to front: print this line.
    Say(String),
    /// Engine to front: print this table and write this JSON, as asked for.
    Stats(String, String),
    /// Engine to front: vswap itself failed; the message has been sent.
    Failed,
    /// Engine to front: end the tree.
    KillAll,
    /// Engine to front: nobody is left, so the engine ends.
    Over,
}

impl Message {
    fn head_and_texts(&self) -> ([u8; HEAD], [&str; 2]) {
        let (kind, value, texts): (u8, i32, [&str; 2]) = match self {
            Message::Installed(pid) => (0, *pid, [""; 2]),
            Message::NotInstalled(errno) => (1, *errno, [""; 2]),
            Message::NotExecuted(errno) => (2, *errno, [""; 2]),
            Message::Changed(Change::Exited(code)) => (3, i32::from(*code), [""; 2]),
            Message::Changed(Change::Killed(signal)) => (4, *signal, [""; 2]),
            Message::Changed(Change::Stopped(signal)) => (5, *signal, [""; 2]),
            Message::Changed(Change::Continued) => (6, 0, [""; 2]),
            Message::Program(pid) => (7, *pid, [""; 2]),
            Message::Say(text) => (8, 0, [text, ""]),
            Message::Stats(table, json) => (9, table.len() as i32, [table, json]),
            Message::Failed => (10, 0, [""; 2]),
            Message::KillAll => (11, 0, [""; 2]),
            Message::Over => (12, 0, [""; 2]),
            Message::Keeps(pid) => (13, *pid, [""; 2]),
        };
        let [a, b, c, d] = value.to_le_bytes();
        ([kind, a, b, c, d], texts)
    }

    /// With texts cut at the end of a character where all of it would be too long: what is sent can always be read.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (mut head, [first, second]) = self.head_and_texts();
        let first = cut(first, LONGEST - HEAD);
        let second = cut(second, LONGEST - HEAD - first.len());
        if let Message::Stats(..) = self {
            head[1..].copy_from_slice(&(first.len() as i32).to_le_bytes());
        }
        [&head, first.as_bytes(), second.as_bytes()].concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Message> {
        let (kind, rest) = bytes.split_first()?;
        let (value, text) = rest.split_first_chunk::<4>()?;
        let value = i32::from_le_bytes(*value);
        let string = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some(match kind {
            0 => Message::Installed(value),
            1 => Message::NotInstalled(value),
            2 => Message::NotExecuted(value),
            3 => Message::Changed(Change::Exited(value as u8)),
            4 => Message::Changed(Change::Killed(value)),
            5 => Message::Changed(Change::Stopped(value)),
            6 => Message::Changed(Change::Continued),
            7 => Message::Program(value),
            8 => Message::Say(string(text)),
            9 => {
                let (table, json) = text.split_at_checked(value as usize)?;
                Message::Stats(string(table), string(json))
            }
            10 => Message::Failed,
            11 => Message::KillAll,
            12 => Message::Over,
            13 => Message::Keeps(value),
            _ => return None,
        })
    }

    /// Sends it. Without texts it allocates nothing.
    pub(crate) fn send(&self, socket: BorrowedFd) -> io::Result<()> {
        match self.head_and_texts() {
            (head, ["", ""]) => scm::send(socket, &head, &[]),
            _ => scm::send(socket, &self.encode(), &[]),
        }
    }

    /// Sends it, one without texts, with a descriptor. Allocates nothing.
    pub(crate) fn send_with(&self, socket: BorrowedFd, fd: BorrowedFd) -> io::Result<()> {
        scm::send(socket, &self.head_and_texts().0, &[fd])
    }

    /// Receives one; `None` when the other end is closed.
    pub(crate) fn receive(socket: BorrowedFd) -> io::Result<Option<(Message, Option<OwnedFd>)>> {
        let mut bytes = [0; LONGEST];
        let (n, mut fds) = match scm::receive(socket, &mut bytes) {
            // The other end was closed with something unread. What it had sent before comes now.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => scm::receive(socket, &mut bytes)?,
            result => result?,
        };
        if n == 0 {
            return Ok(None);
        }
        let message = Message::decode(&bytes[..n]).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Some((message, fds.pop())))
    }
}

/// As much of a text as so many bytes hold.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// The kernel says that the connection was reset first, and then gives what was sent before.
    #[test]
    fn what_was_sent_before_the_other_end_was_closed_with_something_unread_is_received() {
        let (here, there) = scm::pair().unwrap();
        Message::Over.send(here.as_fd()).unwrap();
        Message::Program(7).send(there.as_fd()).unwrap();
        drop(there);
        let (message, fd) = Message::receive(here.as_fd()).unwrap().unwrap();
        assert!(message == Message::Program(7) && fd.is_none(), "{message:?}");
        assert!(Message::receive(here.as_fd()).unwrap().is_none());
    }

    /// They were cut in the middle of a character, and a table that did not fit was none to whoever received it.
    #[test]
    fn a_text_that_is_too_long_is_cut_at_the_end_of_a_character_and_can_be_read() {
        let long = "\u{fc}".repeat(LONGEST);
        let fits = (LONGEST - HEAD) / 2;
        assert_eq!(
            Message::decode(&Message::Say(long.clone()).encode()),
            Some(Message::Say("\u{fc}".repeat(fits)))
        );
        let table = Message::Stats(long.clone(), "{}".into()).encode();
        let rest = "{".repeat((LONGEST - HEAD) % 2);
        assert_eq!(Message::decode(&table), Some(Message::Stats("\u{fc}".repeat(fits), rest)));
        let json = Message::Stats("table\n".into(), long).encode();
        assert!(matches!(Message::decode(&json), Some(Message::Stats(table, _)) if table == "table\n"));
    }

    #[test]
    fn every_message_survives_its_encoding() {
        let all = [
            Message::Installed(5),
            Message::NotInstalled(16),
            Message::NotExecuted(2),
            Message::Changed(Change::Exited(255)),
            Message::Changed(Change::Killed(9)),
            Message::Changed(Change::Stopped(20)),
            Message::Changed(Change::Continued),
            Message::Program(7),
            Message::Say("a line".into()),
            Message::Stats("table\n".into(), "{}".into()),
            Message::Failed,
            Message::KillAll,
            Message::Over,
            Message::Keeps(8),
        ];
        for message in all {
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
        assert_eq!(Message::decode(&[200, 0, 0, 0, 0]), None);
    }
}

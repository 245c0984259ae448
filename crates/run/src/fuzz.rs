//! What fuzzing needs of the formats' insides. Built for `crates/fuzz` only.

use crate::message::{LONGEST, Message};

/// Reads bytes as a message of the processes of a run to each other. Tells whether they were one.
///
/// # Panics
/// When what was read cannot be sent on: it would be too long, or read as none, or, if nothing of it had to be cut off, as another one.
pub fn message_is_sent_as_received(bytes: &[u8]) -> bool {
    let Some(message) = Message::decode(bytes) else { return false };
    let sent = message.encode();
    assert!(sent.len() <= LONGEST, "{} bytes", sent.len());
    let again = Message::decode(&sent).unwrap_or_else(|| panic!("{message:?} is read as none"));
    assert_eq!(again.encode(), sent, "{message:?}");
    if sent.len() + 3 < LONGEST {
        assert_eq!(again, message);
    }
    true
}

/// Messages of each kind, as they are sent: bytes to begin with.
pub fn messages() -> Vec<Vec<u8>> {
    let texts = |long: usize| Message::Stats("t".repeat(long), "{\"j\":0}".repeat(long / 8));
    let words = [
        Message::Say("a line".into()),
        Message::Say("\u{fc}".repeat(LONGEST)),
        texts(80),
        texts(LONGEST - 6),
    ];
    let plain = (0..=13).map(|kind| [kind, 9, 0, 0, 0].to_vec());
    plain.chain(words.iter().map(Message::encode)).collect()
}

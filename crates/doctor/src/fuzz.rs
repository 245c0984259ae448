//! What fuzzing needs of the formats' insides. Built for `crates/fuzz` only.

use std::path::Path;

use crate::setup::state::State;
use crate::setup::{Step, steps_back};

/// Reads a text as the state of a setup, and plans the undo of it. Tells whether it was one.
///
/// # Panics
/// When what was read would be written as something else, a line is refused that is not there, or a step is none that could be of a setup: so nothing
/// is removed that a setup cannot have made, and no name is taken for an option by the command that gets it.
pub fn state_is_written_as_read(text: &str) -> bool {
    let state = match State::parse(text) {
        Ok(state) => state,
        Err((line, found)) => {
            assert_eq!(text.lines().nth(line - 1), Some(found.as_str()));
            return false;
        }
    };
    assert_eq!(State::parse(&state.text()), Ok(state.clone()));
    for step in steps_back(&state) {
        assert!(!step.to_string().contains(char::is_control), "{step:?} is shown to whoever is asked");
        match &step {
            Step::RemoveGroup(group) => assert!(is_name(group), "{step:?}"),
            Step::RemoveMember { user, group } => assert!(is_name(user) && is_name(group), "{step:?}"),
            Step::RemoveFile(path) | Step::RemoveDirectory(path) => assert!(is_below_root(path), "{step:?}"),
            Step::RestoreDevice(owner) => assert!(owner.mode <= 0o7777, "{step:?}"),
            _ => panic!("{step:?} undoes nothing"),
        }
    }
    true
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') && name.chars().all(plain)
}

/// Whether a path stays below whatever is put before it, and is not that itself.
fn is_below_root(path: &Path) -> bool {
    let text = path.to_str().unwrap_or_default();
    let mut parts = text.split('/').filter(|part| !part.is_empty()).peekable();
    text.starts_with('/') && parts.peek().is_some() && parts.all(|part| part != "..")
}

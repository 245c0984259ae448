//! What a thread's objects are after each thing that it has done, and whether what was found is that.

use super::journal::{Class, Name, Op, Outcome};
use super::written;
use std::collections::BTreeMap;

/// An object as it is known to be.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Object {
    pub version: u64,
    /// `None` is not there.
    pub bytes: Vec<Option<u8>>,
    pub aux: u64,
    pub pinned: bool,
    /// All of it was written while it was pinned or dirty, and is so still: nothing of it may have been given up.
    pub held: bool,
    /// It may have been made anew by who was killed then.
    pub or_new: bool,
}

/// An object as it was found.
#[derive(Debug)]
pub struct Found {
    pub version: u64,
    pub bytes: Vec<Option<u8>>,
    pub aux: u64,
    pub pinned: bool,
    pub dirty: bool,
}

pub type Models = BTreeMap<Name, Object>;

impl Object {
    fn has_bytes(&self) -> bool {
        self.bytes.iter().any(Option::is_some)
    }

    fn is_dirty(&self, class: Class) -> bool {
        class == Class::Dirty && self.held && self.has_bytes()
    }

    fn stays(&self, class: Class) -> bool {
        self.pinned || self.is_dirty(class)
    }

    /// What of it is not as it was found.
    fn differs(&self, class: Class, found: &Found) -> Option<String> {
        let is_new = found.bytes.is_empty() && found.aux == 0 && !found.pinned;
        if self.or_new && found.version == self.version && is_new {
            return None;
        }
        let known = (self.version, self.bytes.len(), self.aux, self.pinned, self.is_dirty(class));
        let seen = (found.version, found.bytes.len(), found.aux, found.pinned, found.dirty);
        if known != seen {
            return Some(format!("(version, length, aux, pinned, dirty) is {seen:?}, wanted {known:?}"));
        }
        let wrong = |(known, seen): (&Option<u8>, &Option<u8>)| match seen {
            None => known.is_some() && self.held,
            some => some != known,
        };
        let at = self.bytes.iter().zip(&found.bytes).position(wrong)?;
        Some(format!("byte {at} is {:?}, wanted {:?}, held: {}", found.bytes[at], self.bytes[at], self.held))
    }
}

/// What of a name is not as it was found.
pub fn differs(models: &Models, name: Name, found: Option<&Found>) -> Option<String> {
    match (models.get(&name), found) {
        (None, None) => None,
        (None, Some(found)) => Some(format!("{name:?} is there, of version {}", found.version)),
        (Some(known), None) if known.stays(name.class()) => {
            Some(format!("{name:?} is not there, and is held"))
        }
        (Some(_), None) => None,
        (Some(known), Some(found)) => {
            known.differs(name.class(), found).map(|what| format!("{name:?}: {what}"))
        }
    }
}

/// Does what a thread has done; of what it was killed in, `outcome` is not known, and it is done. An error is what the thread should not have found.
pub fn act(models: &mut Models, op: &Op, outcome: Option<&Outcome>) -> Result<(), String> {
    match outcome {
        Some(Outcome::Refused) => return Ok(()),
        Some(Outcome::Failed(what)) => return Err(what.clone()),
        _ => {}
    }
    let known = |models: &mut Models, name: Name, change: &dyn Fn(&mut Object)| match models.get_mut(&name) {
        Some(object) => {
            change(object);
            Ok(())
        }
        None => Err(format!("{op:?} of an object that is not there")),
    };
    match *op {
        Op::Open { name, version } => {
            let former = models.get(&name).cloned().unwrap_or_default();
            let new = Object { version, ..Object::default() };
            let now = match outcome {
                // A pin is the name's.
                None | Some(Outcome::Opened { len: 0, aux: 0 }) if former.version < version => {
                    Object { pinned: former.pinned, held: former.pinned, ..new }
                }
                None => Object { or_new: !former.stays(name.class()), ..former },
                Some(Outcome::Opened { len, aux })
                    if (version, *len, *aux) == (former.version, former.bytes.len() as u64, former.aux) =>
                {
                    former
                }
                // It had been given up.
                Some(Outcome::Opened { len: 0, aux: 0 }) if !former.stays(name.class()) => new,
                _ => return Err(format!("{op:?} found {outcome:?}")),
            };
            models.insert(name, now);
        }
        Op::Write { name, offset, len, noise } => known(models, name, &|object| {
            object.held |= object.bytes.is_empty() && name.class() == Class::Dirty;
            let (start, end) = (offset as usize, (offset + len) as usize);
            if object.bytes.len() < end {
                object.bytes.resize(end, None);
            }
            let bytes = written(noise, len).into_iter().map(Some);
            object.bytes[start..end].iter_mut().zip(bytes).for_each(|(there, byte)| *there = byte);
        })?,
        Op::Punch { name, from, to } => known(models, name, &|object| {
            let end = object.bytes.len();
            object.bytes[(from as usize).min(end)..(to as usize).min(end)].fill(None);
        })?,
        Op::SetLen { name, len } => known(models, name, &|object| object.bytes.resize(len as usize, None))?,
        Op::SetAux { name, aux } => known(models, name, &|object| object.aux = aux)?,
        Op::Pin { name } => known(models, name, &|object| {
            object.pinned = true;
            object.held |= !object.has_bytes();
        })?,
        Op::Unpin { name } => known(models, name, &|object| (object.pinned, object.held) = (false, false))?,
        Op::Clean { name } => known(models, name, &|object| object.held = false)?,
        Op::Remove { name } => drop(models.remove(&name)),
        Op::Invalidate { below } => models.retain(|name, _| !below.covers(*name)),
        Op::Reclaim { .. } | Op::Sync => {}
    }
    Ok(())
}

/// Names that it may change.
pub fn touches(op: &Op, name: Name) -> bool {
    match *op {
        Op::Open { name: its, .. }
        | Op::Write { name: its, .. }
        | Op::Punch { name: its, .. }
        | Op::SetLen { name: its, .. }
        | Op::SetAux { name: its, .. }
        | Op::Pin { name: its }
        | Op::Unpin { name: its }
        | Op::Clean { name: its }
        | Op::Remove { name: its } => its == name,
        Op::Invalidate { below } => below.covers(name),
        Op::Reclaim { .. } | Op::Sync => false,
    }
}

//! Starting processes: splitting this one, and executing a program.
//!
//! # Safety
//! A process with several threads must not be split: locks of the others would stay held in the child. [`fork`] asks the kernel first.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{CStr, CString, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Which side of a fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old one, with the child's number.
    Parent(i32),
}

/// Whether this process has one thread.
fn is_single() -> io::Result<bool> {
    // The kernel has nothing to do then, and refuses it else (`check_unshare_flags` of `kernel/fork.c`).
    // SAFETY: no pointers; a process of one thread stays as it is.
    if unsafe { libc::unshare(libc::CLONE_THREAD) } == 0 {
        return Ok(true);
    }
    // Or a container refuses the call.
    Ok(fs::read_dir("/proc/self/task")?.count() == 1)
}

/// Splits this process in two.
///
/// # Errors
/// `EAGAIN`, `ENOMEM`; `EDEADLK` if this process has more than one thread (locks of the others would stay held).
pub fn fork() -> io::Result<Fork> {
    if !is_single()? {
        return Err(io::Error::from_raw_os_error(libc::EDEADLK));
    }
    // SAFETY: there is one thread, checked above.
    match unsafe { libc::fork() } {
        0 => Ok(Fork::Child),
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Executes a program in place of this one; returns only if that fails. Allocates nothing.
///
/// It executes what glibc's `execvp` would: the first of its places where there is one, a script without `#!` by the shell.
pub fn execute(arguments: &Arguments) -> io::Error {
    let (mut refused, mut last) = (None, io::Error::from_raw_os_error(libc::ENOENT));
    for place in &arguments.places {
        let error = execute_at(place, &arguments.words[1..]);
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR | libc::ENODEV | libc::ESTALE | libc::ETIMEDOUT) => {
                last = error
            }
            Some(libc::EACCES) => refused = Some(error),
            Some(libc::ENOEXEC) => {
                arguments.words[0].set(SHELL.as_ptr());
                arguments.words[1].set(place.as_ptr());
                return execute_at(SHELL, &arguments.words);
            }
            _ => return error,
        }
    }
    refused.unwrap_or(last)
}

const SHELL: &CStr = c"/bin/sh";

fn execute_at(place: &CStr, words: &[Cell<*const libc::c_char>]) -> io::Error {
    unsafe extern "C" {
        static environ: *const *const libc::c_char;
    }
    // SAFETY: (1) `words` is the end of an [`Arguments`]' own: pointers to live strings and a null; a `Cell` is laid out as what
    // it holds. (2) `environ` is the C library's vector, which nobody changes: there is one thread.
    unsafe { libc::execve(place.as_ptr(), words.as_ptr().cast(), environ) };
    io::Error::last_os_error()
}

/// Arguments of a program, ready to be executed.
#[derive(Debug)]
pub struct Arguments {
    /// Where the program may be, in this order.
    places: Vec<CString>,
    /// Room for a shell, the program's name and arguments, and a null pointer.
    words: Vec<Cell<*const libc::c_char>>,
    // What `words` point at.
    _strings: Vec<CString>,
}

impl Arguments {
    /// Prepares them: the name, which is searched for in `PATH` if it has no slash, and what follows it.
    ///
    /// # Errors
    /// `InvalidInput` if there are none or one holds a zero byte.
    pub fn new(words: &[OsString]) -> io::Result<Arguments> {
        let name = words.first().ok_or(io::ErrorKind::InvalidInput)?.as_bytes();
        let strings =
            words.iter().map(|word| CString::new(word.as_bytes())).collect::<Result<Vec<CString>, _>>()?;
        let path = match std::env::var_os("PATH") {
            _ if name.is_empty() || name.contains(&b'/') => None,
            None => Some(b"/bin:/usr/bin".to_vec()),
            Some(path) => Some(path.into_vec()),
        };
        let places = match path {
            None => vec![strings[0].clone()],
            Some(path) => path
                .split(|&byte| byte == b':')
                .map(|dir| match dir {
                    // The working directory.
                    [] => CString::new(name),
                    dir => CString::new([dir, b"/", name].concat()),
                })
                .collect::<Result<_, _>>()?,
        };
        let pointers = strings.iter().map(|string| string.as_ptr());
        let words = [std::ptr::null()].into_iter().chain(pointers).chain([std::ptr::null()]);
        Ok(Arguments { places, words: words.map(Cell::new).collect(), _strings: strings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Change, change_of, leave};

    fn end_of(pid: i32) -> Change {
        loop {
            if let Some(change) = change_of(pid).unwrap() {
                return change;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_process_with_threads_is_not_split() {
        let other = std::thread::spawn(std::thread::park);
        assert_eq!(fork().unwrap_err().raw_os_error(), Some(libc::EDEADLK));
        other.thread().unpark();
        other.join().unwrap();
    }

    /// How `words` end once they are executed; the error's number if they could not be.
    fn executed(words: &[OsString]) -> Result<Change, i32> {
        let arguments = Arguments::new(words).unwrap();
        // SAFETY: the child allocates nothing and touches no lock.
        let change = match unsafe { libc::fork() } {
            0 => leave(128 + execute(&arguments).raw_os_error().unwrap_or(0)),
            pid => end_of(pid),
        };
        match change {
            Change::Exited(status @ 128..) => Err(i32::from(status) - 128),
            other => Ok(other),
        }
    }

    #[test]
    fn a_script_without_a_shell_named_in_it_is_executed_with_many_arguments() {
        let script = std::env::temp_dir().join(format!("vswap-script-{}", crate::process::own_pid()));
        // No `#!`.
        fs::write(&script, "exit $(($# & 127))\n").unwrap();
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut words: Vec<OsString> = vec![script.clone().into()];
        words.extend((0..50_000).map(|_| "x".into()));
        let ended = executed(&words);
        fs::remove_file(&script).unwrap();
        assert_eq!(ended, Ok(Change::Exited((50_000 & 127) as u8)));
    }

    #[test]
    fn a_name_is_searched_for_and_what_cannot_be_executed_is_told() {
        assert_eq!(executed(&["sh".into(), "-c".into(), "exit 7".into()]), Ok(Change::Exited(7)));
        assert_eq!(executed(&["/bin/sh".into(), "-c".into(), "exit 8".into()]), Ok(Change::Exited(8)));
        assert_eq!(executed(&["no-such-program".into()]), Err(libc::ENOENT));
        assert_eq!(executed(&["".into()]), Err(libc::ENOENT));
        assert_eq!(executed(&["/etc/passwd".into()]), Err(libc::EACCES));
        assert_eq!(executed(&["/etc/passwd/x".into()]), Err(libc::ENOTDIR));
        assert!(Arguments::new(&[]).is_err() && Arguments::new(&["a\0b".into()]).is_err());
    }
}

//! `--record`: the thread that writes the pager's notes of faults to a file, in the form that `vswap_core::recording` describes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use vswap_core::recording::{Coder, LONGEST, MAGIC, Recorded};
use vswap_pager::Recorder;

/// How often the notes are taken: their buffer holds what comes in a hundred times as long.
const EVERY: Duration = Duration::from_millis(2);

/// Opens a file for a record without emptying it, and makes it if there is none: asked before a run, that tells whether it could be recorded.
///
/// # Errors
/// What opening says. `InvalidInput` if it is neither a regular file nor a character device: a FIFO or socket whose reader stands still would
/// hold up the end of the run, and one without a reader its start.
pub fn open_record(path: &Path) -> io::Result<File> {
    let found = fs::metadata(path).map(|found| found.file_type());
    if found.is_ok_and(|kind| !kind.is_file() && !kind.is_char_device() && !kind.is_dir()) {
        let what = "it is neither a regular file nor a device like /dev/null";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    OpenOptions::new().append(true).create(true).open(path)
}

/// The same for a run that begins: what an earlier one wrote goes.
pub(crate) fn begin_record(path: &Path) -> io::Result<File> {
    let file = open_record(path)?;
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    Ok(file)
}

/// A recording that goes on.
#[derive(Debug)]
pub(crate) struct Recording {
    recorder: Arc<Recorder>,
    over: Arc<AtomicBool>,
    writer: Option<JoinHandle<io::Result<u64>>>,
}

impl Recording {
    /// Writes what `recorder` notes to `file` from now on.
    ///
    /// # Errors
    /// What starting a thread says.
    pub(crate) fn start(recorder: Arc<Recorder>, file: File) -> io::Result<Recording> {
        let over = Arc::new(AtomicBool::new(false));
        let life = {
            let (recorder, over) = (Arc::clone(&recorder), Arc::clone(&over));
            move || write(&recorder, &over, file)
        };
        let builder = std::thread::Builder::new().name("record".into()).stack_size(256 << 10);
        let writer = Some(builder.spawn(life)?);
        Ok(Recording { recorder, over, writer })
    }

    /// Ends it; says what there is to say of it. What comes later is not recorded any more.
    pub(crate) fn end(&mut self) -> Option<String> {
        let writer = self.writer.take()?;
        // What is left running is managed as without a record.
        self.recorder.end();
        self.over.store(true, SeqCst);
        let written = writer.join().unwrap_or_else(|_| Err(io::Error::other("its writer has ended")));
        match (written, self.recorder.dropped()) {
            (Err(error), _) => Some(format!(
                "the record of faults could not be written and is not complete: {}",
                crate::front::plain(&error)
            )),
            (Ok(_), 0) => None,
            (Ok(count), dropped) => {
                Some(format!("{count} faults recorded; {dropped} came too fast for that and are missing"))
            }
        }
    }
}

/// The writer's life: returns how many faults it has written.
fn write(recorder: &Recorder, over: &AtomicBool, mut file: File) -> io::Result<u64> {
    let (mut notes, mut coder, mut count) = (Recorder::buffer(), Coder::default(), 0);
    let mut bytes = MAGIC.to_vec();
    loop {
        // Asked before the last notes are taken, so that none is left behind.
        let last = over.load(SeqCst);
        recorder.take(&mut notes);
        count += notes.len() as u64;
        encode(&mut coder, &notes, &mut bytes);
        file.write_all(&bytes)?;
        bytes.clear();
        if last {
            return Ok(count);
        }
        std::thread::sleep(EVERY);
    }
}

fn encode(coder: &mut Coder, notes: &[Recorded], into: &mut Vec<u8>) {
    for note in notes {
        let mut record = [0; LONGEST];
        let len = coder.write(*note, &mut record);
        into.extend_from_slice(&record[..len]);
    }
}

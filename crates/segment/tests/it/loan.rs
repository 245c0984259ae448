//! Room of a file that somebody lends.

use parking_lot::Mutex;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use vswap_segment::{
    AlignedBuf, BLOCK, Extent, Lender, Lending, Loan, SEGMENT_BYTES, Storage, is_full, is_lent,
};
use vswap_sys::direct::DirectFile;
use vswap_sys::scm;

const SEGMENT: u64 = SEGMENT_BYTES as u64;
const SEGMENTS: u32 = 8;

/// Lends a file, but for its first segment; all that it has is free.
#[derive(Default)]
struct Plain {
    lent: Mutex<BTreeSet<u32>>,
    /// Milliseconds that it takes to lend.
    slow: AtomicU64,
    /// The file, and what was there of each segment when it was taken back.
    looks: OnceLock<File>,
    seen: Mutex<Vec<u8>>,
}

impl Lender for Plain {
    fn lend_segments(&self, most: u32) -> Vec<Extent> {
        std::thread::sleep(Duration::from_millis(self.slow.load(Ordering::Relaxed)));
        let mut lent = self.lent.lock();
        let free: Vec<u32> =
            (1..SEGMENTS).filter(|number| !lent.contains(number)).take(most as usize).collect();
        lent.extend(&free);
        free.into_iter().map(extent).collect()
    }

    fn prepare(&self, _most: u32) {}

    fn take_back(&self, back: &[Extent]) {
        if let Some(file) = self.looks.get() {
            let mut byte = [0];
            for extent in back {
                file.read_exact_at(&mut byte, extent.offset() + 8192).unwrap();
                self.seen.lock().push(byte[0]);
            }
        }
        let mut lent = self.lent.lock();
        back.iter().for_each(|extent| assert!(lent.remove(&((extent.offset() / SEGMENT) as u32))));
    }

    fn spare(&self) -> u32 {
        SEGMENTS - 1 - self.lent.lock().len() as u32
    }
}

fn extent(number: u32) -> Extent {
    Extent::new(number)
}

struct Place {
    dir: tempfile::TempDir,
    lender: Arc<Plain>,
    file: File,
    lending: Option<Lending>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let file =
            File::options().read(true).write(true).create_new(true).open(dir.path().join("data")).unwrap();
        file.set_len(u64::from(SEGMENTS) * SEGMENT).unwrap();
        let mut place = Self { dir, lender: Arc::default(), file, lending: None };
        place.lend();
        place
    }

    fn lend(&mut self) {
        let lender: Arc<dyn Lender> = Arc::<Plain>::clone(&self.lender);
        let file = DirectFile::received(self.file.try_clone().unwrap().into()).map(Arc::new).unwrap();
        self.lending = Some(Lending::start(self.dir.path(), (file, SEGMENTS), &lender).unwrap());
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join(".vswap-room")
    }

    fn borrow(&self) -> Arc<Loan> {
        Arc::new(Loan::of_store(self.dir.path(), None).unwrap())
    }

    fn lent(&self) -> usize {
        self.lender.lent.lock().len()
    }

    fn until_lent(&self, many: usize) {
        let since = Instant::now();
        while self.lent() != many {
            assert!(since.elapsed() < Duration::from_secs(20), "{} are lent", self.lent());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A connection of somebody who is no borrower of ours.
    fn stranger(&self) -> OwnedFd {
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        connect(&socket, &SocketAddrUnix::new(self.dir.path().join(".vswap-room")).unwrap()).unwrap();
        socket
    }
}

fn block(byte: u8) -> AlignedBuf {
    let mut block = AlignedBuf::zeroed(BLOCK);
    block.fill(byte);
    block
}

fn read(loan: &Loan, segment: u64) -> Option<u8> {
    let mut into = AlignedBuf::zeroed(BLOCK);
    let got = loan.read_at(segment * SEGMENT + 8192, &mut into).unwrap();
    assert!(got == 0 || got == BLOCK && into.iter().all(|byte| *byte == into[0]));
    (got > 0).then(|| into[0])
}

fn write(loan: &Loan, segment: u64, byte: u8) -> std::io::Result<()> {
    loan.write_at(segment * SEGMENT + 8192, &block(byte))
}

#[test]
fn segments_are_borrowed_when_they_are_written_and_go_back_when_they_are_freed() {
    let place = Place::new();
    let loan = place.borrow();
    assert_eq!((loan.capacity(), place.lent()), (u64::from(SEGMENTS) * SEGMENT, 0));
    assert_eq!(loan.room().unwrap().bytes, 7 * SEGMENT);
    assert_eq!(read(&loan, 5), None);
    for segment in [5, 0, 3] {
        write(&loan, segment, segment as u8 + 1).unwrap();
    }
    // Some at once, so that not each has to be asked for.
    assert_eq!((place.lent(), loan.room().unwrap().bytes), (4, 4 * SEGMENT));
    assert_eq!([5, 0, 3, 1].map(|segment| read(&loan, segment)), [Some(6), Some(1), Some(4), None]);
    loan.punch(3 * SEGMENT, SEGMENT).unwrap();
    assert_eq!([5, 0, 3].map(|segment| read(&loan, segment)), [Some(6), Some(1), None]);
    place.until_lent(3);
    assert!(write(&loan, 8, 0).is_err() && write(&loan, u64::from(u32::MAX), 0).is_err(), "beyond the end");
    assert!(
        loan.write_at(SEGMENT - BLOCK as u64, &AlignedBuf::zeroed(2 * BLOCK)).is_err(),
        "over the end of one"
    );
    drop(loan);
    place.until_lent(0);
}

#[test]
fn two_borrowers_never_have_the_same_segment_and_who_finds_none_is_told_that_it_is_full() {
    let place = Place::new();
    let (one, other) = (place.borrow(), place.borrow());
    let mut wrote = [0, 0];
    for segment in 0..8 {
        for (which, loan) in [&one, &other].into_iter().enumerate() {
            match write(loan, segment, (which * 100) as u8 + segment as u8) {
                Ok(()) => wrote[which] += 1,
                Err(error) => assert!(is_full(&error), "{error}"),
            }
        }
    }
    assert_eq!((wrote, place.lent()), ([4, 3], 7));
    assert_eq!(one.room().unwrap().bytes, 0);
    for segment in 0..4 {
        assert_eq!(read(&one, segment), Some(segment as u8));
        assert_eq!(read(&other, segment), (segment < 3).then_some(100 + segment as u8));
    }
    drop(other);
    place.until_lent(4);
    write(&one, 4, 4).unwrap();
    assert_eq!(read(&one, 4), Some(4));
}

#[test]
fn a_queue_of_writes_borrows_and_keeps_the_loan_until_they_are_there() {
    let place = Place::new();
    let loan = place.borrow();
    let mut queue = Arc::clone(&loan).write_queue(2);
    for segment in 0..7 {
        if queue.is_full() {
            queue.wait().unwrap().unwrap().result.unwrap();
        }
        queue
            .submit(segment * SEGMENT + 8192, block(segment as u8 + 1), BLOCK, segment)
            .map_err(|(e, _)| e)
            .unwrap();
    }
    while let Some(done) = queue.wait().unwrap() {
        done.result.unwrap();
    }
    let (error, back) = queue.submit(7 * SEGMENT, block(9), BLOCK, 7).unwrap_err();
    assert!(is_full(&error) && back[0] == 9, "{error}");
    assert!((0..7).all(|segment| read(&loan, segment) == Some(segment as u8 + 1)));
    drop(loan);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(place.lent(), 7, "the queue has it still");
    drop(queue);
    place.until_lent(0);
}

#[test]
fn who_loses_the_lender_keeps_what_is_there_and_gets_no_more() {
    let mut place = Place::new();
    let loan = place.borrow();
    write(&loan, 0, 7).unwrap();
    // Nobody new comes; who is there goes on.
    place.lending = None;
    assert!(Loan::of_store(place.dir.path(), None).is_err());
    (1..5).for_each(|segment| write(&loan, segment, 8).unwrap());
    place.lender = Arc::default();
    let error =
        write(&loan, 5, 9).and_then(|()| write(&loan, 6, 9)).and_then(|()| write(&loan, 7, 9)).unwrap_err();
    assert!(error.to_string().contains("who lends the room is gone") && !is_full(&error), "{error}");
    assert_eq!((read(&loan, 0), read(&loan, 4)), (Some(7), Some(8)));
    write(&loan, 0, 9).unwrap();
    loan.punch(SEGMENT, SEGMENT).unwrap();
    assert_eq!((read(&loan, 0), read(&loan, 1)), (Some(9), None));
    // What it has freed is its own still, and of use.
    write(&loan, 1, 5).unwrap();
    assert_eq!((read(&loan, 0), read(&loan, 1), read(&loan, 2)), (Some(9), Some(5), Some(8)));
}

#[test]
fn nonsense_is_answered_by_nothing_and_takes_nothing_from_anybody() {
    let place = Place::new();
    let loan = place.borrow();
    write(&loan, 0, 7).unwrap();
    let send = |socket: &OwnedFd, words: &[u32]| {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        scm::send(socket.as_fd(), &bytes, &[])
    };
    // No greeting, another's, and one that is cut short: hung up on.
    for words in [&[1, 4][..], &[0x7277_7376, 2], &[0x7277_7376]] {
        let stranger = place.stranger();
        send(&stranger, words).unwrap();
        assert_eq!(scm::receive(stranger.as_fd(), &mut [0; 64]).unwrap().0, 0, "{words:?}");
    }
    let stranger = place.stranger();
    send(&stranger, &[0x7277_7376, 1]).unwrap();
    let (bytes, files) = scm::receive(stranger.as_fd(), &mut [0; 64]).unwrap();
    assert_eq!((bytes, files.len()), (12, 1));
    // What is somebody else's is not given back, nor what nobody has.
    for words in [&[3, 1, 2, 3, 4, 5, 6, 7, 8, u32::MAX][..], &[3], &[9; 200], &[1, 2, 3], &[0], &[2, 2]] {
        send(&stranger, words).unwrap();
    }
    send(&stranger, &[2]).unwrap();
    let mut answer = [0; 64];
    assert_eq!(scm::receive(stranger.as_fd(), &mut answer).unwrap().0, 8);
    assert_eq!((answer[0], answer[4], place.lent()), (2, 3, 4));
    // However much is asked for, so much is there.
    send(&stranger, &[1, u32::MAX]).unwrap();
    assert_eq!(scm::receive(stranger.as_fd(), &mut answer).unwrap().0, 16);
    assert_eq!(place.lent(), 7);
    drop(stranger);
    place.until_lent(4);
    assert_eq!(read(&loan, 0), Some(7));
}

#[test]
fn a_slow_lender_is_not_waited_for_and_its_late_answer_counts() {
    let place = Place::new();
    let loan = place.borrow();
    place.lender.slow.store(2500, Ordering::Relaxed);
    // It is as full meanwhile, and asked nothing else.
    for segment in 0..2 {
        let error = write(&loan, segment, 1).unwrap_err();
        assert!(is_full(&error), "{error}");
    }
    place.until_lent(4);
    place.lender.slow.store(0, Ordering::Relaxed);
    let since = Instant::now();
    while write(&loan, 0, 1).is_err() {
        assert!(since.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(5));
    }
    (1..4).for_each(|segment| write(&loan, segment, 1).unwrap());
    assert_eq!(place.lent(), 4, "those that came late are used");
    (4..7).for_each(|segment| write(&loan, segment, 1).unwrap());
    assert!((0..7).all(|segment| read(&loan, segment) == Some(1)));
}

#[test]
fn a_lender_that_took_anothers_place_keeps_its_socket_and_a_file_of_that_name_stays() {
    let mut place = Place::new();
    let first = place.lending.take();
    place.lend();
    drop(first);
    assert!(place.path().exists());
    write(&place.borrow(), 0, 1).unwrap();
    place.lending = None;
    assert!(!place.path().exists());
    std::fs::write(place.path(), "mine").unwrap();
    let lender: Arc<dyn Lender> = Arc::<Plain>::clone(&place.lender);
    let file = DirectFile::received(place.file.try_clone().unwrap().into()).map(Arc::new).unwrap();
    assert!(Lending::start(place.dir.path(), (file, SEGMENTS), &lender).is_err());
    assert_eq!(std::fs::read(place.path()).unwrap(), b"mine");
}

/// A hole is punched first: that waits for what a killed borrower has under way, which else would land on the next one's bytes.
#[test]
fn what_an_ended_borrower_had_is_a_hole_before_anybody_else_can_have_it() {
    let place = Place::new();
    place.lender.looks.set(place.file.try_clone().unwrap()).unwrap();
    let loan = place.borrow();
    (0..5).for_each(|segment| write(&loan, segment, 7).unwrap());
    // Given back while it lives, nothing of its is under way there.
    loan.punch(0, SEGMENT).unwrap();
    place.until_lent(7 - 1);
    assert_eq!(*place.lender.seen.lock(), [7]);
    drop(loan);
    place.until_lent(0);
    assert_eq!(*place.lender.seen.lock(), [7, 0, 0, 0, 0, 0, 0]);
}

/// Pages would be in another user's hands.
#[test]
fn another_users_socket_is_no_lender() {
    let place = Place::new();
    if place.file.metadata().unwrap().uid() != 0 || !is_lent(place.dir.path()) {
        eprintln!("skipped: only root can be somebody else");
        return;
    }
    chown(place.path(), Some(65534), None).unwrap();
    assert!(!is_lent(place.dir.path()));
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let program = "import os, socket, sys
os.setgid(65534)
os.setuid(65534)
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(sys.argv[1])
listener.listen()
print('listens', flush=True)
sys.stdin.read()";
    let path = dir.path().join(".vswap-room");
    let mut other = Command::new("python3")
        .args(["-c", program, path.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 8];
    other.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"listens\n");
    let error = Loan::of_store(dir.path(), None).unwrap_err();
    drop(other.stdin.take());
    other.wait().unwrap();
    assert!(error.to_string().contains("another user's"), "{error}");
}

/// A lender that answers by hand: to a greeting, and to each question.
fn answered_by_hand(answers: &[Vec<u32>], check: impl FnOnce(&Loan)) {
    let place = Place::new();
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrUnix::new(dir.path().join(".vswap-room")).unwrap()).unwrap();
    rustix::net::listen(&socket, 4).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let borrower = rustix::net::accept(&socket).unwrap();
            scm::receive(borrower.as_fd(), &mut [0; 64]).unwrap();
            let hello: Vec<u8> =
                [0x7277_7376_u32, 1, SEGMENTS].iter().flat_map(|word| word.to_le_bytes()).collect();
            scm::send(borrower.as_fd(), &hello, &[place.file.as_fd()]).unwrap();
            for answer in answers {
                scm::receive(borrower.as_fd(), &mut [0; 64]).unwrap();
                let bytes: Vec<u8> = answer.iter().flat_map(|word| word.to_le_bytes()).collect();
                scm::send(borrower.as_fd(), &bytes, &[]).unwrap();
            }
            while scm::receive(borrower.as_fd(), &mut [0; 64]).unwrap().0 > 0 {}
        });
        check(&Loan::of_store(dir.path(), None).unwrap());
    });
}

#[test]
fn segments_that_no_lender_can_mean_are_not_written_to() {
    for wrong in [
        vec![1, 0],
        vec![1, 8],
        vec![1, u32::MAX],
        vec![1, 3, 3],
        vec![1, 2, 7, 1 << 31],
        vec![2, 1],
        vec![9],
    ] {
        answered_by_hand(std::slice::from_ref(&wrong), |loan| {
            let error = write(loan, 0, 1).unwrap_err();
            assert!(!is_full(&error), "{wrong:?}: {error}");
            assert_eq!(read(loan, 0), None);
        });
    }
    // One that has been had already.
    answered_by_hand(&[vec![1, 5], vec![1, 5]], |loan| {
        write(loan, 0, 1).unwrap();
        assert!(!is_full(&write(loan, 1, 2).unwrap_err()));
        assert_eq!((read(loan, 0), read(loan, 1)), (Some(1), None));
    });
}

#[test]
fn what_answers_as_no_lender_does_is_refused() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let refused = |dir: &Path| Loan::of_store(dir, None).unwrap_err().to_string();
    assert!(refused(dir.path()).contains("nobody lends"));
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrUnix::new(dir.path().join(".vswap-room")).unwrap()).unwrap();
    rustix::net::listen(&socket, 4).unwrap();
    let answers = [vec![], vec![1, 2, 3, 4], [0x7277_7376_u32, 2, 8].map(u32::to_le_bytes).concat()];
    for answer in answers {
        let says = std::thread::scope(|scope| {
            scope.spawn(|| {
                let borrower = rustix::net::accept(&socket).unwrap();
                scm::receive(borrower.as_fd(), &mut [0; 64]).unwrap();
                if !answer.is_empty() {
                    scm::send(borrower.as_fd(), &answer, &[]).unwrap();
                }
            });
            refused(dir.path())
        });
        let wanted = if answer.is_empty() { "hung up" } else { "another language" };
        assert!(says.contains(wanted) && says.contains(dir.path().to_str().unwrap()), "{says}");
    }
}

//! The engine's process: where pages are kept, and the supervisor. Its main thread waits for ends: of processes, of
//! stubs, of the keeper, of the front, and of the last process that lives under the filter.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use vswap_engine::{CodecChoice, Encryption, Engine, EngineConfig};
use vswap_pager::{FullPolicy, Pager, PagerConfig, Recorder};
use vswap_stub::protocol::STAGING_WINDOWS;
use vswap_sys::poll::{EVENTS, Epoll};
use vswap_sys::process::{self, Change};
use vswap_sys::seccomp::Listener;
use vswap_sys::uffd::{Uffd, feature};
use vswap_sys::{inherited, scm, signal};

use crate::census::Census;
use crate::config::{self, Codec, Full, RunConfig};
use crate::control::{Controls, Door};
use crate::keeper::Keeper;
use crate::message::Message;
use crate::record::Recording;
use crate::report::Report;
use crate::sample::Sampler;
use crate::supervisor::{Readers, STUB_TOKEN, Supervisor, Warned};
use crate::tree::Tree;

const KEEPER: u64 = 1 << 41;
const FRONT: u64 = 1 << 42;
const LISTENER: u64 = 1 << 43;
const PROGRAM: u64 = 1 << 44;

/// Below this much private memory a process is left alone, whatever the limit.
const LEFT_ALONE: u64 = 16 << 20;
/// Below this limit the engine saves on its buffers.
const LEAN_BELOW: u64 = 128 << 20;
/// A stub that has ended while its program lives on, without an exec, for so long has crashed.
const CRASHED_AFTER: Duration = Duration::from_secs(2);

/// A failure of vswap before the program runs: a sentence for the user.
type Failure = String;

/// The engine's ends of its sockets.
pub(crate) struct Ends {
    pub(crate) front: OwnedFd,
    /// Its other end is the program's until that is executed.
    pub(crate) program: OwnedFd,
}

/// Becomes the engine. `mark` is what tells our calls from the program's; `keeper` is there if one is to start the program.
pub(crate) fn run(config: &RunConfig, ends: Ends, mark: u64, census: Census, keeper: Option<Keeper>) -> ! {
    let Ends { front, program } = ends;
    match prepare(config, &front, program, mark, census, keeper) {
        Ok(mut main) => {
            drop(front);
            main.watch()
        }
        Err(failure) => {
            let _ = Message::Say(failure).send(front.as_fd());
            let _ = Message::Failed.send(front.as_fd());
            process::leave(1)
        }
    }
}

struct Main {
    supervisor: Arc<Supervisor>,
    /// If there is one, which then is the program's parent; else the front is.
    keeper: Option<OwnedFd>,
    program: OwnedFd,
    report: Report,
    recording: Option<Recording>,
    /// Who asks from outside.
    door: Arc<Door>,
    wait_all: bool,
    wants_report: bool,
    /// The program has ended and the front knows.
    over: bool,
    /// Front or keeper was killed before: nobody is to live on.
    ending: bool,
    /// Processes whose stub has ended, since when.
    stubless: HashMap<i32, Instant>,
}

fn prepare(
    config: &RunConfig,
    front: &OwnedFd,
    program: OwnedFd,
    mark: u64,
    census: Census,
    keeper: Option<Keeper>,
) -> Result<Main, Failure> {
    let started = Instant::now();
    let text = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    process::set_group(0, 0).map_err(text("making a process group"))?;
    process::adopt_orphans();
    let keeper = keeper
        .map(|keeper| keeper.fork(&census, &[front.as_fd(), program.as_fd()]))
        .transpose()
        .map_err(text("starting a process"))?;
    keep_from_signals();
    // All that follows is done while the program gets ready on another CPU.
    let filters = process::own_filters().map_err(text("/proc"))? + 1;
    let tiers = crate::disk::choose(config)?;
    let record = config.record.as_ref().map(|path| {
        crate::record::begin_record(path)
            .map_err(|error| format!("cannot write --record {}: {error}", path.display()))
    });
    let record = record.transpose()?;
    let kept = [Some(front), keeper.as_ref(), Some(&program)];
    let kept = kept.into_iter().flatten().map(|fd| fd.as_fd());
    let kept: Vec<_> = kept.chain(record.as_ref().map(|file| file.as_fd())).collect();
    process::keep_only(&kept).map_err(text("/dev/null"))?;
    let _ = std::env::set_current_dir("/");
    process::raise_descriptor_limit();
    report_panics(front);
    let device = open_device();
    if device.is_none() {
        Uffd::open(feature::MAIN_FEATURES).map_err(|error| {
            format!(
                "no access to userfaultfd: {}; sudo vswap setup gives it to a group once, vswap doctor says more",
                crate::front::plain(&error)
            )
        })?;
    }
    let lean = config.memory.get() < LEAN_BELOW;
    let encryption = if config.encrypt { Encryption::On } else { Encryption::Off };
    let engine_config =
        EngineConfig { codec: codec(config.codec), tiers, encryption, pool_limit: None, lean };
    let engine = Engine::new(engine_config).map_err(|error| error.to_string())?;
    let poll = Epoll::new().map_err(text("epoll"))?;
    let report = Report::new(config, started);
    let (listener, pid) = receive_listener(&program, front)?;
    let supervisor = Arc::new(Supervisor {
        listener,
        mark,
        pager: OnceLock::new(),
        threshold: LEFT_ALONE.min(config.memory.get() / 4),
        device,
        windows: staging_windows(config),
        filters,
        tree: Tree::default(),
        census,
        poll,
        front: front.try_clone().map_err(text("a descriptor"))?,
        readers: Readers::default(),
        grown: AtomicU64::new(0),
        warned: Warned::default(),
    });
    if !supervisor.let_execute() {
        let _ = process::kill(pid, signal::SIGKILL);
        return Err("vswap was ended before the program was executed".into());
    }
    // The program is being loaded meanwhile.
    let recorder = record.as_ref().map(|_| Arc::<Recorder>::default());
    let _ = supervisor.pager.set(start_pager(config, engine, front, recorder.clone())?);
    let recording = recorder.zip(record).map(|(recorder, file)| Recording::start(recorder, file));
    let recording = recording.transpose().map_err(text("starting a thread"))?;
    // Older kernels wake asynchronously: slower, not wrong.
    let _ = supervisor.listener.wake_synchronously();
    crate::log::start(front);
    let _ = Message::Program(pid).send(front.as_fd());
    let main = Main {
        supervisor,
        keeper,
        program,
        report,
        recording,
        door: Arc::default(),
        wait_all: config.wait_all,
        wants_report: config.wants_report(),
        over: false,
        ending: false,
        stubless: HashMap::new(),
    };
    main.begin(config, started).map_err(text("starting a thread"))?;
    Ok(main)
}

/// Whoever stops a service, or the whole group while we leave it, means the program: while that ends in its own time it is served.
/// What has come already is dropped by this.
pub(crate) fn keep_from_signals() {
    signal::FOR_PROGRAMS.into_iter().for_each(signal::ignore);
    // A write past the limit of files is an error then: its tier takes no more. Of the time that a program may take, ours is no part.
    signal::OF_LIMITS.into_iter().for_each(signal::ignore);
    inherited::restore_blocked();
}

/// Staging windows of each address space: what is staged counts, so a small limit allows few.
fn staging_windows(config: &RunConfig) -> u32 {
    let affordable = (config.memory.get() / (32 << 20)).clamp(3, u64::from(STAGING_WINDOWS));
    affordable as u32
}

fn codec(codec: Codec) -> CodecChoice {
    match codec {
        Codec::Auto => CodecChoice::Auto,
        Codec::Lz4 => CodecChoice::Lz4,
        Codec::Zstd => CodecChoice::Zstd,
    }
}

fn start_pager(
    config: &RunConfig,
    engine: Arc<Engine>,
    front: &OwnedFd,
    record: Option<Arc<Recorder>>,
) -> Result<Pager, Failure> {
    let text = |error: std::io::Error| format!("starting the pager: {error}");
    let teller = front.try_clone().map_err(text)?;
    let mut pager = PagerConfig::new(config.memory);
    pager.count_own_memory = true;
    pager.record = record;
    pager.reclaim_target = config.reclaim;
    pager.reclaim_turn = config.reclaim_turn.unwrap_or(pager.reclaim_turn);
    pager.huge_pages = match config.huge_pages {
        config::HugePages::Auto => vswap_pager::HugePages::WhereTheyPay,
        config::HugePages::On => vswap_pager::HugePages::Always,
        config::HugePages::Off => vswap_pager::HugePages::Never,
    };
    pager.full = match config.full {
        Full::Grow => FullPolicy::Grow,
        Full::Kill => FullPolicy::Kill,
    };
    let kill = config.full == Full::Kill;
    pager.on_full = Some(Box::new(move |full| {
        let _ = Message::Say(crate::report::full(&full, kill)).send(teller.as_fd());
        if kill && full.group.is_none() {
            let _ = Message::KillAll.send(teller.as_fd());
        }
    }));
    let teller = front.try_clone().map_err(text)?;
    pager.on_failed_write = Some(Box::new(move |error| {
        let _ = Message::Say(crate::report::failed_write(error)).send(teller.as_fd());
    }));
    Pager::new(pager, engine).map_err(text)
}

/// `/dev/userfaultfd`, for programs that may not call `userfaultfd` (or will not after a change of user).
fn open_device() -> Option<OwnedFd> {
    std::fs::File::options().read(true).write(true).open("/dev/userfaultfd").ok().map(OwnedFd::from)
}

/// Waits until `awaited` can be read. `false` if the front ends before: a program that was stopped may be all that is waited for.
pub(crate) fn comes_before_end_of(front: BorrowedFd, awaited: BorrowedFd) -> bool {
    let Ok(poll) = Epoll::new() else { return false };
    if poll.add(awaited, 0).is_err() || poll.add_hangup(front, 1).is_err() {
        return false;
    }
    loop {
        let mut tokens = [0; EVENTS];
        let n = poll.wait(&mut tokens, -1).unwrap_or(0);
        if n > 0 {
            return tokens[..n].contains(&0);
        }
    }
}

/// The listener, and the program's number.
fn receive_listener(program: &OwnedFd, front: &OwnedFd) -> Result<(Listener, i32), Failure> {
    const EBUSY: i32 = 16;
    if !comes_before_end_of(front.as_fd(), program.as_fd()) {
        return Err("vswap was ended before the program was executed".into());
    }
    match Message::receive(program.as_fd()) {
        Ok(Some((Message::Installed(pid), Some(fd)))) => {
            let listener = Listener::from_fd(fd);
            Ok((listener, pid))
        }
        Ok(Some((Message::NotInstalled(EBUSY), _))) => Err(
            "a seccomp supervisor watches this process already (another vswap run, or a container's): they cannot be \
             nested; start vswap outside of it"
                .to_owned(),
        ),
        Ok(Some((Message::NotInstalled(errno), _))) => Err(format!(
            "the seccomp filter could not be installed: {}; vswap doctor says more",
            std::io::Error::from_raw_os_error(errno)
        )),
        _ => Err("the program's process ended before it could be prepared".to_owned()),
    }
}

/// Standard error is not ours: a panic is told to the front.
fn report_panics(front: &OwnedFd) {
    if let Ok(front) = front.try_clone() {
        std::panic::set_hook(Box::new(move |info| {
            let _ = Message::Say(format!("internal error: {info}")).send(front.as_fd());
            // Half a supervisor is worse than none: stubs and front end the programs.
            process::leave(101);
        }));
    }
}

impl Main {
    /// Starts what goes on beside the program.
    fn begin(&self, config: &RunConfig, started: Instant) -> std::io::Result<()> {
        let supervisor = &self.supervisor;
        supervisor.start_reader()?;
        if let Some(keeper) = &self.keeper {
            supervisor.poll.add(keeper.as_fd(), KEEPER)?;
        }
        supervisor.poll.add(supervisor.front.as_fd(), FRONT)?;
        supervisor.poll.add(self.program.as_fd(), PROGRAM)?;
        supervisor.poll.add_hangup(supervisor.listener.as_fd(), LISTENER)?;
        let controls = Controls::of_run(config, Arc::clone(supervisor), started, self.report.peak());
        let door = Arc::clone(&self.door);
        Sampler::start(Arc::clone(supervisor), self.report.peak(), move || door.open(controls))
    }

    fn watch(&mut self) -> ! {
        loop {
            let mut tokens = [0; EVENTS];
            let patience = match (self.stubless.is_empty(), self.ending) {
                (false, _) => 2,
                (true, true) => 20,
                (true, false) => -1,
            };
            let n = self.supervisor.poll.wait(&mut tokens, patience).unwrap_or(0);
            for &token in &tokens[..n] {
                match token {
                    KEEPER => self.hear_keeper(),
                    PROGRAM => drop(self.hear_program()),
                    FRONT => self.hear_front(),
                    LISTENER => self.end(),
                    token if token & STUB_TOKEN != 0 => self.stub_ended((token & !STUB_TOKEN) as i32),
                    token => self.process_ended(token as i32),
                }
            }
            self.look_at_stubless();
            if self.ending {
                // Again and again until nobody lives: some may just have been born.
                self.supervisor.census.kill_all();
            }
        }
    }

    /// Hears what the program says before it is executed. `false` if there will be no more.
    fn hear_program(&mut self) -> bool {
        match Message::receive(self.program.as_fd()) {
            Ok(Some((message, _))) => {
                self.over |= matches!(message, Message::NotExecuted(_));
                true
            }
            Ok(None) | Err(_) => {
                let _ = self.supervisor.poll.remove(self.program.as_fd());
                false
            }
        }
    }

    /// The program's parent says something. `false` if it has gone.
    fn hear_parent(&mut self, parent: std::io::Result<Option<(Message, Option<OwnedFd>)>>) -> bool {
        match parent {
            Ok(Some((Message::Changed(Change::Exited(_) | Change::Killed(_)), _))) => {
                // It said before whether it could be executed.
                while scm::wait_readable(self.program.as_fd(), 0) && self.hear_program() {}
                if !self.over && !self.wait_all {
                    self.send_report();
                }
                self.over = true;
                true
            }
            Ok(Some(_)) => true,
            Ok(None) | Err(_) => false,
        }
    }

    fn hear_front(&mut self) {
        if !self.hear_parent(Message::receive(self.supervisor.front.as_fd())) {
            self.front_gone();
        }
    }

    fn hear_keeper(&mut self) {
        let Some(keeper) = &self.keeper else { return };
        if self.hear_parent(Message::receive(keeper.as_fd())) {
            return;
        }
        if let Some(keeper) = self.keeper.take() {
            let _ = self.supervisor.poll.remove(keeper.as_fd());
        }
        if !self.over && !self.ending {
            self.supervisor.say("the program's keeper was killed, so the program was ended too".into());
            self.ending = true;
        }
    }

    fn send_report(&mut self) {
        if let Some(said) = self.recording.as_mut().and_then(Recording::end) {
            self.supervisor.say(said);
        }
        if self.wants_report {
            let (table, json) = self.report.make(self.supervisor.pager());
            let _ = Message::Stats(table, json).send(self.supervisor.front.as_fd());
        }
    }

    /// The front has ended: as it does after the program, or killed, and then nothing may outlive it.
    fn front_gone(&mut self) {
        let _ = self.supervisor.poll.remove(self.supervisor.front.as_fd());
        // The front heard of the program's end after the keeper had told us.
        while let Some(keeper) = self.keeper.as_ref().filter(|_| !self.over && !self.ending)
            && scm::wait_readable(keeper.as_fd(), 0)
        {
            self.hear_keeper();
        }
        self.ending |= !self.over;
    }

    /// Nobody lives under the filter any more.
    fn end(&mut self) -> ! {
        // The program's parent may not have been heard yet.
        let since = Instant::now();
        while !self.over && !self.ending && since.elapsed() < Duration::from_secs(2) {
            if self.keeper.is_some() { self.hear_keeper() } else { self.hear_front() }
        }
        if self.wait_all {
            self.send_report();
        }
        self.door.close();
        let _ = Message::Over.send(self.supervisor.front.as_fd());
        process::leave(0)
    }

    fn process_ended(&mut self, pid: i32) {
        let Some(process) = self.supervisor.tree.remove(pid) else { return };
        self.stubless.remove(&pid);
        let _ = self.supervisor.poll.remove(process.handle.as_fd());
        self.supervisor.census.strike(pid);
        let memory = process.memory();
        if process.lender().is_none() {
            self.supervisor.forget_growth(&memory);
        }
        if process.lender().is_none()
            && let Some(managed) = memory.managed()
        {
            self.supervisor.release(&process, &memory, &managed);
        }
        // An orphan that came to us.
        process.handle.reap();
    }

    fn stub_ended(&mut self, pid: i32) {
        if let Some(process) = self.supervisor.tree.get(pid)
            && let Some(managed) = process.memory().managed()
        {
            let _ = self.supervisor.poll.remove(managed.stub.thread.as_fd());
            self.stubless.entry(pid).or_insert_with(Instant::now);
        }
    }

    /// A stub ends with its program, at an exec, when it is sent away, or by a crash, which the program must not survive.
    fn look_at_stubless(&mut self) {
        let supervisor = &self.supervisor;
        self.stubless.retain(|&pid, since| {
            let Some(process) = supervisor.tree.get(pid) else { return false };
            let memory = process.memory();
            let Some(managed) = memory.managed().filter(|managed| managed.stub.thread.has_ended()) else {
                return false;
            };
            if managed.memory_gone() {
                supervisor.release(&process, &memory, &managed);
                return false;
            }
            if process.handle.has_ended() || managed.leaving.load(std::sync::atomic::Ordering::SeqCst) {
                return false;
            }
            if since.elapsed() > CRASHED_AFTER {
                supervisor
                    .say(format!("the stub in process {pid} ended unexpectedly, so the process was ended"));
                let _ = process.handle.signal(signal::SIGKILL);
                return false;
            }
            true
        });
    }
}

//! The cluster of a coherence world: its clients at work, and what happens to them.

use super::register::{Register, Span, Value};
use crate::cluster::SimCluster;
use crate::simulation::dice::Dice;
use cairn_client::{FileSystem, Handle, OpenFlags};
use cairn_common::attributes::{AttributeChange, FileKind, NewInode, Owner};
use cairn_common::error::FsError;
use cairn_common::ids::{DirCookie, Ino};
use cairn_common::scheme::Scheme;
use cairn_common::wire::master::RenameMode;
use cairn_runtime::sim::{Crash, NetworkFaults, World};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

const FILES: usize = 3;
const NAMES: [&str; 3] = ["n0", "n1", "n2"];
const LOG: &str = "log";
const RECORD_BYTES: usize = 24;
const CHUNKSERVERS: usize = 3;
/// How often somebody looks whether something has happened.
const POLL: Duration = Duration::from_millis(50);
/// By then every client has heard what has become of its session.
const SETTLED_AFTER: Duration = Duration::from_secs(15);
/// Everybody has stopped by then, whatever happened.
const PATIENCE: Duration = Duration::from_secs(1_200);

/// What became of a world.
pub struct Outcome {
    pub violations: Vec<String>,
    /// What was done, and how often.
    pub counts: BTreeMap<&'static str, u64>,
    /// Every event, if asked for.
    pub trace: Vec<String>,
}

/// Something that calls change and look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Content(usize),
    Mode(usize),
    Name(usize),
}

#[derive(Default)]
struct History {
    registers: BTreeMap<Thing, Register>,
    /// The inode of a value of a name.
    named: BTreeMap<Ino, Value>,
    /// Records that were appended, with their client, and whether they are known to be in the file whatever happens.
    appended: BTreeMap<Value, (usize, Option<u64>, bool)>,
    last_value: Value,
    violations: Vec<String>,
    counts: BTreeMap<&'static str, u64>,
    /// Clients that have done all they were to do.
    finished: BTreeSet<usize>,
    /// Modes have few values: each is used once.
    last_mode: u16,
}

struct Shared {
    world: World,
    history: Mutex<History>,
}

impl Shared {
    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("nobody panics while holding the history")
    }

    fn now(&self) -> u64 {
        self.world.now().nanos()
    }

    fn count(&self, what: &'static str) {
        *self.history().counts.entry(what).or_default() += 1;
    }

    fn violation(&self, text: String) {
        self.world.note(&format!("VIOLATION {text}"));
        self.history().violations.push(text);
    }

    fn fresh(&self) -> Value {
        let mut history = self.history();
        history.last_value += 1;
        history.last_value
    }

    fn begin(&self, thing: Thing, value: Value, client: usize) {
        let now = self.now();
        self.world.note(&format!("client {client} begins {thing:?} = {value}"));
        self.history().registers.entry(thing).or_default().begin(value, client, now);
    }

    fn done(&self, thing: Thing, value: Value, is_safe: bool) {
        let now = self.now();
        self.world.note(&format!("done {thing:?} = {value}"));
        self.history().registers.entry(thing).or_default().done(value, now, is_safe);
    }

    fn looked(&self, thing: Thing, value: Value, client: usize, begin: u64) {
        let span = Span { begin, end: self.now() };
        self.world.note(&format!("client {client} saw {thing:?} = {value}"));
        self.history().registers.entry(thing).or_default().looked(value, client, span);
    }

    /// What a client held back is gone, by rights: it has died, or was fenced.
    fn lost(&self, client: usize) {
        let mut history = self.history();
        history.registers.values_mut().for_each(|register| register.lost(client));
        history.appended.values_mut().filter(|record| record.0 == client && !record.2).for_each(|record| record.1 = None);
    }

    fn flushed(&self, thing: Thing, client: usize, since: u64) {
        self.history().registers.entry(thing).or_default().flushed(client, since);
    }
}

/// Lives through the world of a seed. Panics if something in it does.
pub fn live_through(seed: u64, with_trace: bool) -> Outcome {
    let world = World::new(seed);
    if with_trace {
        world.collect_trace();
    }
    world.set_time_limit(PATIENCE * 3);
    let shared = Arc::new(Shared { world: world.clone(), history: Mutex::default() });
    world.run_until(story(shared.clone()));
    let history = std::mem::take(&mut *shared.history());
    let mut violations = history.violations;
    for (thing, register) in &history.registers {
        violations.extend(register.violations().into_iter().map(|text| format!("{thing:?}: {text}")));
    }
    Outcome { violations, counts: history.counts, trace: world.trace() }
}

async fn story(shared: Arc<Shared>) {
    let world = shared.world.clone();
    let dice = Dice::of(&world, "coherence");
    let clients = 2 + dice.index(3);
    let cluster = SimCluster::start(world.clone(), Scheme::new(2, 1).expect("a scheme"), CHUNKSERVERS).await;
    let (_, maker) = cluster.client("maker").await;
    cluster.wait_until_whole(&maker).await;
    if let Err(error) = prepare(&maker).await {
        return shared.violation(format!("the files could not be made: {error}"));
    }
    // Whoever has gone without a word is waited for until it is fenced.
    if dice.percent(50) && maker.shutdown().await.is_err() {
        return shared.violation("the files could not be closed".to_owned());
    }
    let steps = 15 + dice.index(40);
    for number in 0..clients {
        launch(&shared, &cluster, number, steps);
    }
    let rounds = if dice.percent(15) { 0 } else { 1 + dice.index(4) };
    for _ in 0..rounds {
        world.sleep(dice.millis(0, 2_000)).await;
        trouble(&shared, &cluster, &dice, clients, steps).await;
    }
    world.network().heal();
    world.network().set_faults(NetworkFaults::default());
    let deadline = world.now().plus(PATIENCE);
    while shared.history().finished.len() < clients {
        if world.now() > deadline {
            return shared.violation("the clients did not get their work done".to_owned());
        }
        world.sleep(POLL).await;
    }
    // Whoever was cut off to the end finds out, and says what it has lost.
    world.sleep(SETTLED_AFTER).await;
    look_through(&shared, &cluster).await;
}

fn new_inode(kind: FileKind) -> NewInode {
    NewInode { kind, mode: 0, owner: Owner { uid: 0, gid: 0 }, rdev: 0, umask: 0, symlink_target: Vec::new() }
}

async fn prepare(fs: &FileSystem) -> Result<(), FsError> {
    for number in 0..FILES {
        fs.create(Ino::ROOT, format!("f{number}").as_bytes(), new_inode(FileKind::Regular), false).await?;
    }
    fs.create(Ino::ROOT, LOG.as_bytes(), new_inode(FileKind::Regular), false).await?;
    fs.create(Ino::ROOT, b"d", new_inode(FileKind::Directory), false).await.map(drop)
}

fn client_name(number: usize) -> String {
    format!("client-{number}")
}

/// Starts a client, or starts it again after its death.
fn launch(shared: &Arc<Shared>, cluster: &SimCluster, number: usize, steps: usize) {
    let runtime = cluster.world.node(&client_name(number)).runtime();
    let settings = cluster.client_settings(&client_name(number));
    let (shared, machine) = (shared.clone(), runtime.clone());
    runtime.spawn("client at work", async move {
        let fs = loop {
            match FileSystem::connect(machine.clone(), settings.clone()).await {
                Ok(fs) => break fs,
                Err(error) => shared.world.note(&format!("client {number} can't connect: {error}")),
            }
            machine.sleep(Duration::from_millis(300)).await;
        };
        let dice = Dice::on(&machine);
        let mut worker = Worker { shared: &shared, fs, number, dice, open: BTreeMap::new(), sessions_lost: 0 };
        for _ in 0..steps {
            machine.sleep(worker.pause()).await;
            worker.step().await;
        }
        worker.close_all().await;
        shared.history().finished.insert(number);
        // It stays, with all its leases, and may yet lose its session.
        loop {
            machine.sleep(POLL).await;
            worker.settle();
        }
    });
}

/// Something breaks, lasts, and ends.
async fn trouble(shared: &Arc<Shared>, cluster: &SimCluster, dice: &Dice, clients: usize, steps: usize) {
    let world = &shared.world;
    let number = dice.index(clients);
    let node = world.node(&client_name(number));
    let lasts = match dice.below(10) {
        0..5 => dice.millis(20, 2_000),
        5..8 => dice.millis(2_000, 9_000),
        _ => dice.millis(9_000, 40_000),
    };
    match dice.below(10) {
        0..2 => {
            shared.count("master killed");
            cluster.crash_master(Crash::Kill);
            world.sleep(lasts).await;
            cluster.start_master().await;
        }
        2..4 => {
            shared.count("client killed");
            node.crash(Crash::Kill);
            shared.lost(number);
            shared.history().finished.remove(&number);
            world.sleep(lasts).await;
            launch(shared, cluster, number, steps);
        }
        4..6 => {
            shared.count("link cut");
            world.network().partition(&cluster.master, &node);
            world.sleep(lasts).await;
            world.network().heal_between(&cluster.master, &node);
        }
        6..7 => {
            shared.count("link cut one way");
            let (from, to) = if dice.percent(50) { (&cluster.master, &node) } else { (&node, &cluster.master) };
            world.network().partition_one_way(from, to);
            world.sleep(lasts).await;
            world.network().heal_between(&cluster.master, &node);
        }
        7..9 => {
            shared.count("lossy network");
            world.network().set_faults(NetworkFaults::lossy());
            world.sleep(lasts).await;
            world.network().set_faults(NetworkFaults::default());
        }
        _ => {
            shared.count("slow client");
            world.network().set_slowness(&node, 100);
            world.sleep(lasts).await;
            world.network().set_slowness(&node, 1);
        }
    }
}

/// One client at work.
struct Worker<'a> {
    shared: &'a Shared,
    fs: FileSystem,
    number: usize,
    dice: Dice,
    /// Files that it keeps open.
    open: BTreeMap<usize, (Ino, Handle)>,
    /// Sessions that it knows to have lost.
    sessions_lost: u64,
}

impl Worker<'_> {
    fn pause(&self) -> Duration {
        match self.dice.below(10) {
            0..5 => Duration::ZERO,
            5..9 => self.dice.millis(0, 40),
            _ => self.dice.millis(40, 900),
        }
    }

    async fn step(&mut self) {
        let file = self.dice.index(FILES);
        let name = self.dice.index(NAMES.len());
        let (what, result) = match self.dice.below(100) {
            0..20 => ("write", self.write(file).await),
            20..45 => ("read", self.read(file).await),
            45..52 => ("chmod", self.change_mode(file).await),
            52..64 => ("stat", self.look_at_mode(file).await),
            64..70 => ("make", self.make(name).await),
            70..74 => ("remove", self.remove(name).await),
            74..78 => ("rename", self.rename(name).await),
            78..86 => ("look up", self.look_up(name).await),
            86..89 => ("list", self.list().await),
            89..95 => ("append", self.append().await),
            95..98 => ("close", self.close(file).await),
            _ => ("fsync", self.sync(file).await),
        };
        self.shared.count(what);
        self.settle();
        match result {
            Ok(()) => {}
            // A session was lost: what was under way may be done or not.
            Err(FsError::Io | FsError::Stale) if self.sessions_lost > 0 => self.shared.count("excused"),
            Err(error) => self.shared.violation(format!("client {}: {what} gives {error:?}", self.number)),
        }
    }

    /// Notices the loss of a session: what it held back may be gone.
    fn settle(&mut self) {
        let lost = self.fs.counters().sessions_lost;
        if lost > self.sessions_lost {
            self.sessions_lost = lost;
            self.shared.count("session lost");
            self.shared.lost(self.number);
        }
    }

    async fn handle(&mut self, file: usize) -> Result<(Ino, Handle), FsError> {
        if let Some(open) = self.open.get(&file) {
            return Ok(*open);
        }
        let ino = self.fs.lookup(Ino::ROOT, format!("f{file}").as_bytes()).await?.ino;
        let opened = self.fs.open(ino, OpenFlags::READ_WRITE).await?;
        self.open.insert(file, (ino, opened.handle));
        Ok((ino, opened.handle))
    }

    async fn write(&mut self, file: usize) -> Result<(), FsError> {
        let (_, handle) = self.handle(file).await?;
        let (thing, value) = (Thing::Content(file), self.shared.fresh());
        self.shared.begin(thing, value, self.number);
        let bytes = value.to_le_bytes();
        self.fs.write(handle, 0, &bytes).await?;
        self.shared.done(thing, value, false);
        Ok(())
    }

    async fn read(&mut self, file: usize) -> Result<(), FsError> {
        let begin = self.shared.now();
        let (_, handle) = self.handle(file).await?;
        let bytes = self.fs.read(handle, 0, 8).await?;
        let value = match <[u8; 8]>::try_from(&bytes[..]) {
            Ok(bytes) => Value::from_le_bytes(bytes),
            Err(_) if bytes.is_empty() => 0,
            Err(_) => return Err(FsError::Invalid),
        };
        self.shared.looked(Thing::Content(file), value, self.number, begin);
        Ok(())
    }

    async fn change_mode(&mut self, file: usize) -> Result<(), FsError> {
        let mode = {
            let mut history = self.shared.history();
            history.last_mode += 1;
            history.last_mode
        };
        // The next ones would have to be used again.
        if mode > 0o777 {
            return Ok(());
        }
        let ino = self.fs.lookup(Ino::ROOT, format!("f{file}").as_bytes()).await?.ino;
        self.shared.begin(Thing::Mode(file), Value::from(mode), self.number);
        let change = AttributeChange { mode: Some(mode), ..AttributeChange::default() };
        self.fs.set_attributes(ino, change, None).await?;
        self.shared.done(Thing::Mode(file), Value::from(mode), true);
        Ok(())
    }

    async fn look_at_mode(&mut self, file: usize) -> Result<(), FsError> {
        let begin = self.shared.now();
        let attributes = self.fs.lookup(Ino::ROOT, format!("f{file}").as_bytes()).await?;
        self.shared.looked(Thing::Mode(file), Value::from(attributes.mode), self.number, begin);
        Ok(())
    }

    async fn directory(&self) -> Result<Ino, FsError> {
        self.fs.lookup(Ino::ROOT, b"d").await.map(|found| found.ino)
    }

    /// Makes a new file for a name. That it is there already is an answer, too.
    async fn make(&mut self, name: usize) -> Result<(), FsError> {
        let directory = self.directory().await?;
        let (thing, value) = (Thing::Name(name), self.shared.fresh());
        self.shared.begin(thing, value, self.number);
        match self.fs.create(directory, NAMES[name].as_bytes(), new_inode(FileKind::Regular), false).await {
            Ok(made) => {
                self.shared.history().named.insert(made.ino, value);
                self.shared.done(thing, value, true);
                Ok(())
            }
            Err(FsError::Exists) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A name that leads nowhere has a value of its own each time.
    async fn remove(&mut self, name: usize) -> Result<(), FsError> {
        let directory = self.directory().await?;
        match self.fs.unlink(directory, NAMES[name].as_bytes()).await {
            Ok(()) | Err(FsError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Puts a file with a name of its own in place of whatever has the name.
    async fn rename(&mut self, name: usize) -> Result<(), FsError> {
        let directory = self.directory().await?;
        let (thing, value) = (Thing::Name(name), self.shared.fresh());
        let from = format!("from-{value}");
        let made = self.fs.create(directory, from.as_bytes(), new_inode(FileKind::Regular), false).await?;
        self.shared.history().named.insert(made.ino, value);
        self.shared.begin(thing, value, self.number);
        self.fs.rename(directory, from.as_bytes(), directory, NAMES[name].as_bytes(), RenameMode::Replace).await?;
        self.shared.done(thing, value, true);
        Ok(())
    }

    /// Names that lead nowhere are not judged: a removal gives no value. That one leads to an older file than it must is.
    fn saw_name(&self, name: usize, ino: Ino, begin: u64) {
        let value = self.shared.history().named.get(&ino).copied();
        if let Some(value) = value {
            self.shared.looked(Thing::Name(name), value, self.number, begin);
        }
    }

    async fn look_up(&mut self, name: usize) -> Result<(), FsError> {
        let begin = self.shared.now();
        let directory = self.directory().await?;
        match self.fs.lookup(directory, NAMES[name].as_bytes()).await {
            Ok(found) => self.saw_name(name, found.ino, begin),
            Err(FsError::NotFound) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn list(&mut self) -> Result<(), FsError> {
        let begin = self.shared.now();
        let directory = self.directory().await?;
        let handle = self.fs.open_directory(directory).await?;
        let mut after = DirCookie(0);
        loop {
            let page = self.fs.read_directory(handle, after, 100, true).await?;
            let Some(last) = page.last() else { break };
            after = last.cookie;
            for entry in &page {
                if let Some(name) = NAMES.iter().position(|name| name.as_bytes() == entry.name) {
                    self.saw_name(name, entry.ino, begin);
                }
            }
        }
        self.fs.release_directory(handle)
    }

    async fn append(&mut self) -> Result<(), FsError> {
        let ino = self.fs.lookup(Ino::ROOT, LOG.as_bytes()).await?.ino;
        let opened = self.fs.open(ino, OpenFlags { append: true, ..OpenFlags::READ_WRITE }).await?;
        let value = self.shared.fresh();
        self.shared.history().appended.insert(value, (self.number, None, false));
        let written = self.fs.write(opened.handle, 0, &record(value)).await;
        if written.is_ok() {
            let now = self.shared.now();
            self.shared.history().appended.insert(value, (self.number, Some(now), false));
        }
        let flushed = match self.dice.percent(50) {
            true => self.fs.flush(opened.handle).await,
            false => Ok(()),
        };
        self.settle();
        if self.dice.percent(50) && flushed.is_ok() && written.is_ok() {
            self.whole_records(opened.handle, Some(value)).await?;
        }
        let released = self.fs.release(opened.handle);
        written.map(drop).and(flushed).and(released)
    }

    /// Reads all records: none is torn, and there is no hole.
    async fn whole_records(&self, handle: Handle, own: Option<Value>) -> Result<(), FsError> {
        let lost_before = self.fs.counters().sessions_lost;
        let content = self.fs.read(handle, 0, 1 << 20).await?;
        let found = records(&content);
        if lost_before != self.fs.counters().sessions_lost || lost_before != self.sessions_lost {
            return Ok(());
        }
        match found {
            Err(problem) => self.shared.violation(format!("client {}: {problem}", self.number)),
            Ok(found) => {
                if let Some(own) = own.filter(|own| !found.contains(own)) {
                    self.shared.violation(format!("client {} does not find its own record {own}", self.number));
                }
            }
        }
        Ok(())
    }

    async fn sync(&mut self, file: usize) -> Result<(), FsError> {
        let Some((_, handle)) = self.open.get(&file).copied() else { return Ok(()) };
        let since = self.shared.now();
        self.fs.fsync(handle, false).await?;
        if self.fs.counters().sessions_lost == self.sessions_lost {
            self.shared.flushed(Thing::Content(file), self.number, since);
        }
        Ok(())
    }

    async fn close(&mut self, file: usize) -> Result<(), FsError> {
        let Some((_, handle)) = self.open.remove(&file) else { return Ok(()) };
        let since = self.shared.now();
        let flushed = self.fs.flush(handle).await;
        if flushed.is_ok() && self.fs.counters().sessions_lost == self.sessions_lost {
            self.shared.flushed(Thing::Content(file), self.number, since);
        }
        self.fs.release(handle)?;
        flushed
    }

    async fn close_all(&mut self) {
        for file in 0..FILES {
            // What was lost was counted.
            let _ = self.close(file).await;
            self.settle();
        }
    }
}

/// A record: its value twice, and once more turned around.
fn record(value: Value) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    for (place, part) in record.chunks_exact_mut(8).zip([value, value, !value]) {
        place.copy_from_slice(&part.to_le_bytes());
    }
    record
}

fn records(content: &[u8]) -> Result<Vec<Value>, String> {
    let mut found = Vec::new();
    for (number, bytes) in content.chunks(RECORD_BYTES).enumerate() {
        let value = bytes.first_chunk::<8>().map(|first| Value::from_le_bytes(*first)).unwrap_or(0);
        if bytes != record(value) {
            return Err(format!("record {number} of {} bytes is torn: {bytes:?}", content.len()));
        }
        found.push(value);
    }
    Ok(found)
}

/// In the end everything appended is there, once; and everybody agrees.
async fn look_through(shared: &Shared, cluster: &SimCluster) {
    let (_, observer) = cluster.client("observer").await;
    let read = async {
        let ino = observer.lookup(Ino::ROOT, LOG.as_bytes()).await?.ino;
        let opened = observer.open(ino, OpenFlags::READ).await?;
        observer.read(opened.handle, 0, 1 << 20).await
    };
    let content = match read.await {
        Ok(content) => content,
        Err(error) => return shared.violation(format!("the log can't be read in the end: {error:?}")),
    };
    let found = match records(&content) {
        Ok(found) => found,
        Err(problem) => return shared.violation(format!("in the end {problem}")),
    };
    let appended = shared.history().appended.clone();
    for (value, (client, done, _)) in appended {
        let times = found.iter().filter(|found| **found == value).count();
        if times > 1 || done.is_some() && times == 0 {
            shared.violation(format!("record {value} of client {client} is {times} times in the log"));
        }
    }
}

//! A client at work: random operations in a directory of its own and on the file that is passed around, each told to the history before it
//! is sent and after it has returned.

use super::dice::Dice;
use super::history::{Shared, Workplace};
use crate::reference::content::stream;
use crate::reference::directory::{Change, DirectoryModel, FileId, Node};
use crate::reference::file::FileModel;
use cairn_client::{AllocateMode, FileSystem, Handle, OpenFlags, Settings};
use cairn_common::attributes::{AttributeChange, FileKind, NewInode, Owner};
use cairn_common::error::FsError;
use cairn_common::ids::{DirCookie, Ino};
use cairn_common::limits::DELETION_GRACE;
use cairn_common::map::ClusterMap;
use cairn_common::wire::master::RenameMode;
use cairn_runtime::Runtime;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const OFFSET_MAX: u64 = 300_000;
const READ_BYTES: usize = 1 << 20;
/// Contents that are written again and again, so that their chunks die and come back.
const COMMON_CONTENTS: u64 = 3;
const COMMON_BYTES: u64 = 90_000;
/// Naps in one world.
const NAPS_MAX: u64 = 8;
/// Operations in one workplace, however long the storm lasts.
const STEPS_MAX: usize = 300;
const FILE_NAMES: [&str; 8] = ["a", "b", "c", "d", "x/a", "x/b", "y/a", "y/b"];
const DIRECTORY_NAMES: [&str; 3] = ["x", "y", "x/z"];

/// Why a client does not go on where it is.
enum Stop {
    /// Something has happened to its workplace: what it believes may be wrong now.
    Shaken,
    /// An operation failed as it may: whether it was done is unknown.
    Unknown,
    /// What came is wrong.
    Wrong(String),
}

type Done<T> = Result<T, Stop>;

/// Lives the life of a client: works whenever it has not done its part.
pub async fn live(shared: Arc<Shared>, number: usize, runtime: Runtime, settings: Settings) {
    let fs = loop {
        match FileSystem::connect(runtime.clone(), settings.clone()).await {
            Ok(fs) => break fs,
            Err(error) => shared.world.note(&format!("client {number} can't connect: {error}")),
        }
        runtime.sleep(Duration::from_millis(500)).await;
    };
    if shared.history().workplaces.is_empty() {
        wait_for_slots(&runtime, &fs).await;
    }
    let dice = Dice::on(&runtime);
    let mut compactions = 0;
    loop {
        // What the client does unasked is counted with what it was asked for.
        let so_far = fs.counters().compactions;
        for _ in compactions..so_far {
            shared.count_operation("compaction");
        }
        compactions = so_far;
        if shared.history().finished[number] {
            // Whoever watches may ask for more.
            runtime.sleep(Duration::from_millis(100)).await;
            continue;
        }
        let sessions_lost = fs.counters().sessions_lost;
        let place = match open_workplace(&shared, &fs, number).await {
            Ok(place) => place,
            Err(error) => {
                let excused = shared.history().failures_excused || fs.counters().sessions_lost > sessions_lost;
                if !excused {
                    shared.violation(format!("client {number} cannot make its directory: {error}"));
                }
                runtime.sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let worker =
            Worker { shared: &shared, fs: &fs, runtime: &runtime, dice: &dice, number, place: place.0, root: place.1, sessions_lost };
        worker.work().await;
    }
}

/// Waits until every slot has a holder, for the first time. What is written while servers are still joining gets as few spares as there are
/// servers for them, by rights; and if those few are the weak ones, then it may be lost by rights, too, which no checker could tell from a bug.
async fn wait_for_slots(runtime: &Runtime, fs: &FileSystem) {
    while !is_complete(&fs.map()) {
        runtime.sleep(Duration::from_millis(100)).await;
    }
}

fn is_complete(map: &ClusterMap) -> bool {
    let mut slots = map.pools.iter().flat_map(|pool| &pool.groups).flat_map(|group| &group.slots).peekable();
    slots.peek().is_some() && slots.all(|slot| slot.holder.is_some())
}

async fn open_workplace(shared: &Shared, fs: &FileSystem, number: usize) -> Result<(usize, Ino), FsError> {
    let (place, name) = {
        let mut history = shared.history();
        let place = history.workplaces.len();
        let name = format!("place-{place}");
        let workplace = Workplace { name: name.clone(), client: number, names: DirectoryModel::default(), files: BTreeMap::new() };
        history.workplaces.push(workplace);
        (place, name)
    };
    let made = async {
        let attributes = fs.create(Ino::ROOT, name.as_bytes(), new_inode(FileKind::Directory, Vec::new()), false).await?;
        fs.sync_directory(Ino::ROOT).await?;
        Ok(attributes.ino)
    };
    let made = made.await;
    if made.is_err() {
        shared.history().workplaces[place].abandon();
    }
    made.map(|ino| (place, ino))
}

/// One client in one workplace.
struct Worker<'a> {
    shared: &'a Shared,
    fs: &'a FileSystem,
    runtime: &'a Runtime,
    dice: &'a Dice,
    number: usize,
    place: usize,
    root: Ino,
    /// Sessions it had lost before it came here.
    sessions_lost: u64,
}

/// An open file of the workplace.
#[derive(Clone, Copy)]
struct Open {
    handle: Handle,
    file: FileId,
}

impl Worker<'_> {
    async fn work(&self) {
        let mut step = 0;
        while step < self.steps() || (self.is_stormy() && step < STEPS_MAX) {
            step += 1;
            self.ponder().await;
            let operation = self.draw();
            self.shared.count_operation(operation.name());
            self.shared.world.note(&format!("client {} in place {} begins {}: {}", self.number, self.place, step, operation.name()));
            let outcome = match self.steady() {
                Ok(()) => self.perform(operation).await,
                shaken => shaken,
            };
            self.shared.world.note(&format!("client {} ends {}", self.number, operation.name()));
            match outcome {
                Ok(()) => {}
                Err(Stop::Shaken) => return,
                Err(Stop::Unknown) => {
                    self.with(Workplace::abandon);
                    return;
                }
                Err(Stop::Wrong(what)) => {
                    self.shared.violation(format!("client {} in place {}: {what}", self.number, self.place));
                    self.with(Workplace::abandon);
                    return;
                }
            }
        }
        self.shared.history().finished[self.number] = true;
    }

    /// Programs do other things, too.
    async fn ponder(&self) {
        let pause = match self.dice.below(20) {
            0..8 => return,
            8..17 => self.dice.millis(0, 60),
            17..19 => self.dice.millis(60, 500),
            _ => self.dice.millis(500, 2_500),
        };
        self.runtime.sleep(pause).await;
    }

    /// Whether the client has lost a session since it came to this place.
    fn has_lost_session(&self) -> bool {
        self.fs.counters().sessions_lost > self.sessions_lost
    }

    fn is_stormy(&self) -> bool {
        self.shared.history().is_stormy
    }

    fn steps(&self) -> usize {
        let plan = &self.shared.plan;
        if self.shared.history().is_healed { plan.steps_after } else { plan.steps }
    }

    fn note(&self, text: String) {
        self.shared.world.note(&format!("client {} in place {}: {text}", self.number, self.place));
    }

    fn with<T>(&self, action: impl FnOnce(&mut Workplace) -> T) -> T {
        action(&mut self.shared.history().workplaces[self.place])
    }

    /// Fails once something has happened to the workplace.
    fn steady(&self) -> Done<()> {
        if self.with(|place| place.names.is_frozen()) { Err(Stop::Shaken) } else { Ok(()) }
    }

    /// What must succeed has returned.
    fn judge<T>(&self, what: &str, result: Result<T, FsError>) -> Done<T> {
        self.steady()?;
        let excused = self.shared.history().failures_excused;
        match result {
            Ok(value) => Ok(value),
            Err(FsError::Io | FsError::NoSpace) if excused => Err(Stop::Unknown),
            // It was cut off for so long that others were let go ahead.
            Err(FsError::Io | FsError::Stale) if self.has_lost_session() => Err(Stop::Unknown),
            Err(error) => Err(Stop::Wrong(format!("{what} failed: {error}"))),
        }
    }

    /// A change of names has returned; `expected` says what the model has made of it.
    fn judge_change<T>(&self, change: &Change, expected: Result<(), FsError>, result: Result<T, FsError>) -> Done<Option<T>> {
        self.note(format!("{change:?}: {:?}", result.as_ref().map(|_| ())));
        self.steady()?;
        match (expected, result) {
            (Ok(()), result) => {
                let value = self.judge(&format!("{change:?}"), result)?;
                let now = self.shared.now();
                self.with(|place| place.names.done(now));
                Ok(Some(value))
            }
            (Err(expected), Err(found)) if expected == found || (expected != FsError::NotFound && found != FsError::Io) => Ok(None),
            (Err(_), Err(FsError::Io)) => self.judge(&format!("{change:?}"), Err(FsError::Io)),
            (Err(expected), Err(found)) => Err(Stop::Wrong(format!("{change:?} gives {found:?} instead of {expected:?}"))),
            (Err(expected), Ok(_)) => Err(Stop::Wrong(format!("{change:?} was done instead of giving {expected:?}"))),
        }
    }

    fn draw(&self) -> Operation {
        let patient = {
            let history = self.shared.history();
            self.shared.plan.patience && !history.is_healed && history.operations.get("nap").is_none_or(|naps| *naps < NAPS_MAX)
        };
        match self.dice.below(100) {
            0..30 => Operation::Write,
            30..36 => Operation::OverwriteStorm,
            36..41 => Operation::Stream,
            41..52 => Operation::Read,
            52..57 => Operation::Truncate,
            57..60 => Operation::Punch,
            60..65 => Operation::Clone,
            65..71 => Operation::Rename,
            71..76 => Operation::Remove,
            76..79 => Operation::Link,
            79..82 => Operation::MakeDirectory,
            82..84 => Operation::RemoveDirectory,
            84..85 => Operation::Symlink,
            85..87 => Operation::List,
            87..93 => Operation::Baton,
            93..96 if patient => Operation::Nap,
            _ => Operation::Recreate,
        }
    }

    async fn perform(&self, operation: Operation) -> Done<()> {
        match operation {
            Operation::Write => self.write().await,
            Operation::OverwriteStorm => self.overwrite_storm().await,
            Operation::Stream => self.stream().await,
            Operation::Read => self.read().await,
            Operation::Truncate => self.truncate().await,
            Operation::Punch => self.punch().await,
            Operation::Clone => self.clone_range().await,
            Operation::Rename => self.rename().await,
            Operation::Remove => self.remove().await,
            Operation::Link => self.link().await,
            Operation::MakeDirectory => self.make_directory().await,
            Operation::RemoveDirectory => self.remove_directory().await,
            Operation::Symlink => self.symlink().await,
            Operation::List => self.list().await,
            Operation::Baton => self.baton().await,
            Operation::Recreate => self.recreate().await,
            Operation::Nap => self.nap().await,
        }
    }

    // ---- files

    fn file_name(&self) -> String {
        (*self.dice.pick(&FILE_NAMES)).to_owned()
    }

    /// Opens a file, which is made if it is missing. `None` if the model says that it can't be.
    async fn open(&self, path: &str) -> Done<Option<Open>> {
        let change = {
            let mut history = self.shared.history();
            let file = history.fresh_file();
            Change::Create { path: path.to_owned(), file }
        };
        let blackouts = self.shared.plan.has_blackout();
        let expected = self.with(|place| {
            let expected = place.names.begin(&change);
            if let Change::Create { file, .. } = change {
                place.files.insert(file, FileModel::new(blackouts));
            }
            expected
        });
        let made = async {
            let (parent, name) = self.parent(path).await?;
            let inode = new_inode(FileKind::Regular, Vec::new());
            self.fs.create_open(parent, name.as_bytes(), inode, true, OpenFlags::READ_WRITE).await
        };
        let Some((_, opened)) = self.judge_change(&change, expected, made.await)? else { return Ok(None) };
        match self.with(|place| place.names.tree().get(path).cloned()) {
            Some(Node::File(file)) => {
                self.note(format!("{path} is open: file {file}, inode {}", opened.attributes.ino));
                Ok(Some(Open { handle: opened.handle, file }))
            }
            other => Err(Stop::Wrong(format!("{path} was opened, and is {other:?}"))),
        }
    }

    async fn parent<'p>(&self, path: &'p str) -> Result<(Ino, &'p str), FsError> {
        match path.rsplit_once('/') {
            None => Ok((self.root, path)),
            Some((parent, name)) => Ok((self.find(parent).await?, name)),
        }
    }

    async fn find(&self, path: &str) -> Result<Ino, FsError> {
        let mut ino = self.root;
        for name in path.split('/') {
            ino = self.fs.lookup(ino, name.as_bytes()).await?.ino;
        }
        Ok(ino)
    }

    async fn put(&self, open: Open, write: u64, offset: u64, len: u64, shift: i64) -> Done<()> {
        self.note(format!("write {write} to {}..{} of file {}", offset, offset + len, open.file));
        self.with(|place| place.file(open.file).write(write, offset, len, shift));
        let data = stream(write, offset.wrapping_add_signed(shift), len as usize);
        let mut written = 0;
        while written < data.len() {
            let result = self.fs.write(open.handle, offset + written as u64, &data[written..]).await;
            written += self.judge("write", result)?;
        }
        Ok(())
    }

    async fn sync(&self, open: Open) -> Done<()> {
        let result = self.fs.fsync(open.handle, self.dice.percent(30)).await;
        self.judge("fsync", result)?;
        self.note(format!("file {} is synced", open.file));
        self.with(|place| {
            place.file(open.file).synced();
            place.names.synced();
        });
        Ok(())
    }

    async fn close(&self, open: Open) -> Done<()> {
        let result = self.fs.flush(open.handle).await;
        self.judge("close", result)?;
        self.note(format!("file {} is closed", open.file));
        let now = self.shared.now();
        self.with(|place| place.file(open.file).flushed(now));
        self.release(open)
    }

    fn release(&self, open: Open) -> Done<()> {
        let result = self.fs.release(open.handle);
        self.judge("release", result)
    }

    /// Ends the use of a file one way or another.
    async fn finish(&self, open: Open) -> Done<()> {
        match self.dice.below(10) {
            0..5 => {
                self.sync(open).await?;
                self.close(open).await
            }
            5..9 => self.close(open).await,
            _ => self.release(open),
        }
    }

    /// The master has answered about a file.
    fn answered(&self, file: FileId) {
        let now = self.shared.now();
        self.with(|place| place.file(file).answered(now));
    }

    fn fresh_write(&self) -> u64 {
        self.shared.history().fresh_write()
    }

    async fn write(&self) -> Done<()> {
        let Some(open) = self.open(&self.file_name()).await? else { return Ok(()) };
        for _ in 0..1 + self.dice.below(3) {
            let len = 1 + self.dice.below(*self.dice.pick(&[600, 5_000, 20_000, 130_000]));
            self.put(open, self.fresh_write(), self.dice.below(OFFSET_MAX), len, 0).await?;
        }
        self.finish(open).await
    }

    async fn overwrite_storm(&self) -> Done<()> {
        let Some(open) = self.open(&self.file_name()).await? else { return Ok(()) };
        let base = self.dice.below(OFFSET_MAX / 2);
        for _ in 0..25 {
            self.put(open, self.fresh_write(), base + self.dice.below(40_000), 1 + self.dice.below(4_096), 0).await?;
            if self.dice.percent(10) {
                self.sync(open).await?;
            }
        }
        self.finish(open).await
    }

    async fn stream(&self) -> Done<()> {
        let Some(open) = self.open(&self.file_name()).await? else { return Ok(()) };
        let (write, total) = (self.fresh_write(), 200_000 + self.dice.below(700_000));
        let mut offset = 0;
        while offset < total {
            let len = (total - offset).min(128 << 10);
            self.put(open, write, offset, len, 0).await?;
            offset += len;
        }
        self.finish(open).await
    }

    /// A whole file of a content that others have, too; often removed soon.
    async fn recreate(&self) -> Done<()> {
        let path = self.file_name();
        let Some(open) = self.open(&path).await? else { return Ok(()) };
        let offset = self.dice.below(3) * 7;
        let content = 1 + self.dice.below(COMMON_CONTENTS);
        self.put(open, content, offset, COMMON_BYTES, -(offset as i64)).await?;
        self.sync(open).await?;
        self.close(open).await?;
        if self.dice.percent(70) { self.unlink(&path).await } else { Ok(()) }
    }

    /// About as long as the master waits before it deletes what nobody uses.
    async fn nap(&self) -> Done<()> {
        let seconds = DELETION_GRACE.as_secs() / 2 + self.dice.below(DELETION_GRACE.as_secs());
        self.runtime.sleep(Duration::from_secs(seconds)).await;
        Ok(())
    }

    async fn read(&self) -> Done<()> {
        let path = self.file_name();
        let node = self.with(|place| place.names.tree().get(&path).cloned());
        let found = async {
            let (parent, name) = self.parent(&path).await?;
            self.fs.lookup(parent, name.as_bytes()).await
        };
        let found = found.await;
        self.steady()?;
        let file = match (node, found) {
            (None, Err(FsError::NotFound | FsError::NotDirectory)) | (Some(Node::Directory | Node::Symlink(_)), Ok(_)) => return Ok(()),
            (Some(Node::File(file)), Ok(attributes)) => (file, attributes),
            (_, Err(FsError::Io)) => return self.judge("lookup", Err(FsError::Io)),
            (node, found) => return Err(Stop::Wrong(format!("{path} is {node:?}, but a lookup gives {found:?}"))),
        };
        let result = read_whole(self.fs, file.1.ino).await;
        let content = self.judge("read", result)?;
        let mismatch = self.with(|place| place.file(file.0).compare(0, Some(&content), 0, true));
        mismatch.map_or(Ok(()), |mismatch| Err(Stop::Wrong(format!("{path} has {mismatch:?}"))))
    }

    /// An existing file by name, with what the model has of it.
    async fn existing(&self, path: &str) -> Done<Option<(Ino, FileId)>> {
        let Some(Node::File(file)) = self.with(|place| place.names.tree().get(path).cloned()) else { return Ok(None) };
        let ino = self.judge("lookup", self.find(path).await)?;
        Ok(Some((ino, file)))
    }

    async fn truncate(&self) -> Done<()> {
        let Some((ino, file)) = self.existing(&self.file_name()).await? else { return Ok(()) };
        let size = self.dice.below(OFFSET_MAX);
        self.note(format!("cut file {file} to {size}"));
        self.with(|place| place.file(file).truncate(size));
        let change = AttributeChange { size: Some(size), ..AttributeChange::default() };
        let result = self.fs.set_attributes(ino, change, None).await;
        let after = self.judge("truncate", result)?;
        self.answered(file);
        if after.size == size { Ok(()) } else { Err(Stop::Wrong(format!("a file cut to {size} bytes has {}", after.size))) }
    }

    async fn punch(&self) -> Done<()> {
        let path = self.file_name();
        if self.existing(&path).await?.is_none() {
            return Ok(());
        }
        let Some(open) = self.open(&path).await? else { return Ok(()) };
        let (start, len) = (self.dice.below(OFFSET_MAX), 1 + self.dice.below(100_000));
        self.note(format!("punch {start}..{} of file {}", start + len, open.file));
        self.with(|place| place.file(open.file).punch(start..start + len));
        let result = self.fs.allocate(open.handle, AllocateMode::PunchHole, start, len).await;
        self.judge("punch", result)?;
        self.answered(open.file);
        self.finish(open).await
    }

    async fn clone_range(&self) -> Done<()> {
        let (from, to) = (self.file_name(), self.file_name());
        if from == to || self.existing(&from).await?.is_none() {
            return Ok(());
        }
        let Some(source) = self.open(&from).await? else { return Ok(()) };
        let Some(target) = self.open(&to).await? else { return self.close(source).await };
        let (offset, place_at) = (self.dice.below(OFFSET_MAX / 2), self.dice.below(OFFSET_MAX / 2));
        let available = self.with(|place| place.file(source.file).len()).saturating_sub(offset);
        let bytes = available.min(1 + self.dice.below(150_000));
        if source.file == target.file || bytes == 0 {
            self.close(target).await?;
            return self.close(source).await;
        }
        // What both files hold goes to the master first.
        for open in [source, target] {
            let result = self.fs.flush(open.handle).await;
            self.judge("flush", result)?;
            let now = self.shared.now();
            self.with(|place| place.file(open.file).flushed(now));
        }
        self.note(format!("clone {offset}..{} of file {} to {place_at} of file {}", offset + bytes, source.file, target.file));
        self.with(|place| {
            let model = place.file(source.file).clone();
            place.file(target.file).clone_range(&model, offset, place_at, bytes);
        });
        let result = self.fs.copy_range(source.handle, offset, target.handle, place_at, bytes).await;
        let copied = self.judge("copy", result)?;
        self.answered(target.file);
        if copied != bytes {
            return Err(Stop::Wrong(format!("{copied} of {bytes} bytes were copied")));
        }
        let content = self.judge("read", read_through(self.fs, target.handle).await)?;
        if let Some(mismatch) = self.with(|place| place.file(target.file).compare(0, Some(&content), 0, true)) {
            return Err(Stop::Wrong(format!("{to} has {mismatch:?} after a clone from {from}")));
        }
        self.finish(target).await?;
        self.close(source).await
    }

    // ---- names

    /// Asks for a change of names and compares the answer with the model's.
    async fn change<T>(&self, change: Change, asked: impl Future<Output = Result<T, FsError>>) -> Done<Option<T>> {
        let expected = self.with(|place| place.names.begin(&change));
        let result = asked.await;
        self.judge_change(&change, expected, result)
    }

    async fn rename(&self) -> Done<()> {
        let directories = self.dice.percent(25);
        let names: &[&str] = if directories { &DIRECTORY_NAMES } else { &FILE_NAMES };
        let (from, to) = ((*self.dice.pick(names)).to_owned(), (*self.dice.pick(names)).to_owned());
        if to.starts_with(&format!("{from}/")) || from.starts_with(&format!("{to}/")) {
            return Ok(());
        }
        let moved = self.with(|place| place.names.tree().get(&from).cloned());
        let change = Change::Rename { from: from.clone(), to: to.clone() };
        let asked = async {
            let (from_parent, from_name) = self.parent(&from).await?;
            let (to_parent, to_name) = self.parent(&to).await?;
            self.fs.rename(from_parent, from_name.as_bytes(), to_parent, to_name.as_bytes(), RenameMode::Replace).await
        };
        if self.change(change, asked).await?.is_some()
            && from != to
            && let Some(Node::File(file)) = moved
        {
            let now = self.shared.now();
            self.with(|place| place.file(file).flushed(now));
        }
        Ok(())
    }

    async fn remove(&self) -> Done<()> {
        self.unlink(&self.file_name()).await
    }

    async fn unlink(&self, path: &str) -> Done<()> {
        let asked = async {
            let (parent, name) = self.parent(path).await?;
            self.fs.unlink(parent, name.as_bytes()).await
        };
        self.change(Change::Remove { path: path.to_owned() }, asked).await.map(drop)
    }

    async fn link(&self) -> Done<()> {
        let (from, to) = (self.file_name(), self.file_name());
        if self.existing(&from).await?.is_none() {
            return Ok(());
        }
        let asked = async {
            let ino = self.find(&from).await?;
            let (parent, name) = self.parent(&to).await?;
            self.fs.link(ino, parent, name.as_bytes()).await
        };
        self.change(Change::Link { from: from.clone(), to: to.clone() }, asked).await.map(drop)
    }

    async fn make_directory(&self) -> Done<()> {
        let path = (*self.dice.pick(&DIRECTORY_NAMES)).to_owned();
        let asked = async {
            let (parent, name) = self.parent(&path).await?;
            self.fs.create(parent, name.as_bytes(), new_inode(FileKind::Directory, Vec::new()), false).await
        };
        self.change(Change::MakeDirectory { path: path.clone() }, asked).await.map(drop)
    }

    async fn remove_directory(&self) -> Done<()> {
        let path = (*self.dice.pick(&DIRECTORY_NAMES)).to_owned();
        let asked = async {
            let (parent, name) = self.parent(&path).await?;
            self.fs.remove_directory(parent, name.as_bytes()).await
        };
        self.change(Change::RemoveDirectory { path: path.clone() }, asked).await.map(drop)
    }

    async fn symlink(&self) -> Done<()> {
        let (path, target) = (self.file_name(), format!("to-{}", self.dice.below(100)));
        let asked = async {
            let (parent, name) = self.parent(&path).await?;
            self.fs.create(parent, name.as_bytes(), new_inode(FileKind::Symlink, target.clone().into_bytes()), false).await
        };
        self.change(Change::Symlink { path: path.clone(), target: target.clone() }, asked).await.map(drop)
    }

    async fn list(&self) -> Done<()> {
        if self.dice.percent(50) {
            let result = self.fs.sync_directory(self.root).await;
            self.judge("fsync of a directory", result)?;
            self.with(|place| place.names.synced());
        }
        let result = list(self.fs, self.root).await;
        let found: Vec<String> = self.judge("list", result)?.into_iter().map(|(name, _, _)| name).collect();
        let expected: Vec<String> = self.with(|place| place.names.tree().keys().filter(|name| !name.contains('/')).cloned().collect());
        if found == expected { Ok(()) } else { Err(Stop::Wrong(format!("the directory has {found:?}, not {expected:?}"))) }
    }

    // ---- the file that is passed on

    /// Takes the baton, reads what the last one has left, writes, and closes it.
    async fn baton(&self) -> Done<()> {
        let _turn = self.shared.baton_turn.lock().await;
        let (name, generation) = {
            let mut history = self.shared.history();
            history.baton.holder = Some(self.number);
            (history.baton.name(), history.baton.generation)
        };
        let outcome = self.run_with_baton(&name, generation).await;
        let mut history = self.shared.history();
        if history.baton.generation == generation {
            history.baton.holder = None;
        }
        outcome
    }

    fn with_baton<T>(&self, generation: u64, action: impl FnOnce(&mut FileModel) -> T) -> Done<T> {
        let mut history = self.shared.history();
        if history.baton.generation == generation { Ok(action(&mut history.baton.file)) } else { Err(Stop::Shaken) }
    }

    /// After a failure nobody goes on with this baton: the client dies for it.
    fn judge_baton<T>(&self, generation: u64, what: &str, result: Result<T, FsError>) -> Done<T> {
        self.with_baton(generation, |_| ())?;
        if let Err(error) = &result {
            let excused = self.shared.history().failures_excused || self.has_lost_session();
            self.shared.client_died(self.number);
            return if excused { Err(Stop::Shaken) } else { Err(Stop::Wrong(format!("{what} of the baton failed: {error}"))) };
        }
        self.judge(what, result)
    }

    async fn run_with_baton(&self, name: &str, generation: u64) -> Done<()> {
        let inode = new_inode(FileKind::Regular, Vec::new());
        let opened = self.fs.create_open(Ino::ROOT, name.as_bytes(), inode, true, OpenFlags::READ_WRITE).await;
        let (_, opened) = self.judge_baton(generation, "open", opened)?;
        let content = self.judge_baton(generation, "read", read_through(self.fs, opened.handle).await)?;
        if let Some(mismatch) = self.with_baton(generation, |file| file.compare(0, Some(&content), 0, true))? {
            return Err(Stop::Wrong(format!("{name} has {mismatch:?} after it was passed on")));
        }
        let (write, offset, len) = (self.fresh_write(), self.dice.below(60_000), 1 + self.dice.below(30_000));
        self.with_baton(generation, |file| file.write(write, offset, len, 0))?;
        let data = stream(write, offset, len as usize);
        let mut written = 0;
        while written < data.len() {
            let result = self.fs.write(opened.handle, offset + written as u64, &data[written..]).await;
            written += self.judge_baton(generation, "write", result)?;
        }
        if self.dice.percent(40) {
            self.judge_baton(generation, "fsync", self.fs.fsync(opened.handle, false).await)?;
            self.with_baton(generation, FileModel::synced)?;
        }
        self.judge_baton(generation, "close", self.fs.flush(opened.handle).await)?;
        let now = self.shared.now();
        self.with_baton(generation, |file| file.flushed(now))?;
        self.judge_baton(generation, "release", self.fs.release(opened.handle))
    }
}

/// What a client can do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Write,
    OverwriteStorm,
    Stream,
    Read,
    Truncate,
    Punch,
    Clone,
    Rename,
    Remove,
    Link,
    MakeDirectory,
    RemoveDirectory,
    Symlink,
    List,
    Baton,
    Recreate,
    Nap,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Write => "write",
            Operation::OverwriteStorm => "overwrite storm",
            Operation::Stream => "stream",
            Operation::Read => "read",
            Operation::Truncate => "truncate",
            Operation::Punch => "punch",
            Operation::Clone => "clone",
            Operation::Rename => "rename",
            Operation::Remove => "remove",
            Operation::Link => "link",
            Operation::MakeDirectory => "mkdir",
            Operation::RemoveDirectory => "rmdir",
            Operation::Symlink => "symlink",
            Operation::List => "list",
            Operation::Baton => "baton",
            Operation::Recreate => "recreate",
            Operation::Nap => "nap",
        }
    }
}

/// The entries of a directory in order of name.
pub async fn list(fs: &FileSystem, directory: Ino) -> Result<Vec<(String, Ino, FileKind)>, FsError> {
    let handle = fs.open_directory(directory).await?;
    let mut entries = Vec::new();
    let mut after = DirCookie(0);
    loop {
        let page = fs.read_directory(handle, after, 100, false).await?;
        let Some(last) = page.last() else { break };
        after = last.cookie;
        entries.extend(page.into_iter().map(|entry| (String::from_utf8_lossy(&entry.name).into_owned(), entry.ino, entry.kind)));
    }
    fs.release_directory(handle)?;
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(entries)
}

async fn read_whole(fs: &FileSystem, ino: Ino) -> Result<Vec<u8>, FsError> {
    let opened = fs.open(ino, OpenFlags::READ).await?;
    let content = read_through(fs, opened.handle).await;
    fs.release(opened.handle)?;
    content
}

async fn read_through(fs: &FileSystem, handle: Handle) -> Result<Vec<u8>, FsError> {
    let mut content = Vec::new();
    loop {
        let part = fs.read(handle, content.len() as u64, READ_BYTES).await?;
        if part.is_empty() {
            return Ok(content);
        }
        content.extend_from_slice(&part);
    }
}

fn new_inode(kind: FileKind, symlink_target: Vec<u8>) -> NewInode {
    let mode = if kind == FileKind::Directory { 0o755 } else { 0o644 };
    NewInode { kind, mode, owner: Owner { uid: 0, gid: 0 }, rdev: 0, symlink_target, umask: 0 }
}

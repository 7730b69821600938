//! The store: log, memtables and redb put together. See the module above.

use super::database::{Database, Position, View};
use super::log::CommandLog;
use super::log::recover::{Recovered, recover};
use super::memtable::Memtable;
use super::tables::{Batch, Changes, Overlay, Reader, StoreError, Table, Value, Visit, disk_error};
use cairn_common::codec;
use cairn_common::ids::LogIndex;
use cairn_common::time::Timestamp;
use cairn_runtime::Runtime;
use cairn_runtime::disk::Disk;
use cairn_runtime::task::TaskGuard;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// What is kept: a deterministic state machine. Equal commands must change equal tables equally.
pub trait Machine: Send + Sync + 'static {
    type Command: Serialize + DeserializeOwned;
    type Outcome;

    /// The time that the command carries; never earlier than that of the command before.
    fn time(command: &Self::Command) -> Timestamp;

    /// Stages the changes of a command. An error means that the tables are broken.
    fn apply(batch: &mut Batch<'_>, index: LogIndex, command: &Self::Command) -> Result<Self::Outcome, StoreError>;
}

/// How a store behaves.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// The master's data directory.
    pub directory: PathBuf,
    /// Bytes of a log segment; default 64 MiB. Smaller ones are trimmed sooner and rolled over more often.
    pub log_segment_bytes: u64,
    /// Bytes of memory for changes that are not in redb yet; default 64 MiB. Up to twice as much is used while the one half
    /// is being written. Larger means fewer writes, and a longer start after a crash.
    pub memtable_bytes: usize,
    /// Bytes of memory for pages of redb; default 256 MiB.
    pub cache_bytes: usize,
    /// How often changes go to redb even if there are few; default 5 s. Longer means a longer start after a crash.
    pub flush_interval: Duration,
}

impl StoreSettings {
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            log_segment_bytes: 64 << 20,
            memtable_bytes: 64 << 20,
            cache_bytes: 256 << 20,
            flush_interval: Duration::from_secs(5),
        }
    }

    /// The file of the tables on disk.
    pub fn tables_path(&self) -> PathBuf {
        self.directory.join("tables.redb")
    }

    /// The directory of the command log.
    pub fn log_path(&self) -> PathBuf {
        self.directory.join("log")
    }
}

/// Why a store does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("{} is in use by another process, most likely another master: stop it first, or name another directory", .0.display())]
    InUse(PathBuf),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An open store. Background work ends when it is dropped.
pub struct Store<M: Machine> {
    core: Arc<Core>,
    _background: [TaskGuard; 2],
    machine: PhantomData<fn() -> M>,
}

/// What the store shares with its background work.
struct Core {
    runtime: Runtime,
    settings: StoreSettings,
    log: CommandLog,
    database: Database,
    state: Mutex<State>,
    /// Held by the one who flushes.
    flushing: tokio::sync::Mutex<()>,
    flush_wanted: Notify,
    /// Tells those who wait for room that the active memtable is a new one.
    frozen: watch::Sender<()>,
    /// Keeps other masters away.
    _lock: Box<dyn Send + Sync>,
}

struct State {
    active: Memtable,
    /// On its way to redb.
    frozen: Option<Arc<Memtable>>,
    view: View,
    /// How far the view goes.
    on_disk: LogIndex,
}

impl State {
    fn read<T>(&self, work: impl FnOnce(&dyn Reader) -> T) -> T {
        let frozen;
        let base: &dyn Reader = match &self.frozen {
            Some(memtable) => {
                frozen = Overlay { changes: memtable.changes(), base: &self.view };
                &frozen
            }
            None => &self.view,
        };
        work(&Overlay { changes: self.active.changes(), base })
    }
}

impl<M: Machine> Store<M> {
    /// Opens (or makes) the store of a directory and replays what the log holds behind the tables.
    pub async fn open(runtime: Runtime, settings: StoreSettings) -> Result<Self, OpenError> {
        let opening = runtime.clone();
        let core = Arc::new(runtime.blocking(move || open_core::<M>(opening, settings)).await?);
        let (syncing, flushing) = (core.clone(), core.clone());
        let background = [
            runtime.spawn("log sync", async move { syncing.log.run_syncing().await }).abort_on_drop(),
            runtime.spawn("flush", async move { flushing.run_flushing().await }).abort_on_drop(),
        ];
        Ok(Self { core, _background: background, machine: PhantomData })
    }

    /// The time for the next command, given the wall clock: never runs backwards.
    pub fn next_time(&self, wall: Timestamp) -> Timestamp {
        wall.max(self.core.state.lock().active.position.at)
    }

    /// Appends a command to the log, applies it and returns its outcome, without waiting for any disk. Call `admit` before.
    pub fn submit(&self, command: &M::Command) -> Result<(M::Outcome, LogIndex), StoreError> {
        let encoded = codec::encode(command);
        let mut state = self.core.state.lock();
        let index = self.core.log.append(&encoded)?;
        let (outcome, changes) = apply::<M>(&state, index, command).inspect_err(|error| self.core.log.fail(error))?;
        state.active.absorb(changes, Position { applied: index, at: M::time(command) });
        if state.active.bytes() > self.core.settings.memtable_bytes {
            self.core.flush_wanted.notify_one();
        }
        Ok((outcome, index))
    }

    /// Waits until there is room for another command: memory stays bounded when redb can't keep up.
    pub async fn admit(&self) -> Result<(), StoreError> {
        let mut frozen = self.core.frozen.subscribe();
        loop {
            if let Some(failure) = self.core.log.failure() {
                return Err(failure);
            }
            if self.core.has_room() {
                return Ok(());
            }
            tokio::select! {
                biased;
                failure = self.core.log.failed() => return Err(failure),
                _ = frozen.changed() => {}
            }
        }
    }

    /// Looks at the state as the last submitted command left it. Blocks briefly if a page of redb is not in memory.
    pub fn read<T>(&self, work: impl FnOnce(&dyn Reader) -> T) -> T {
        self.core.state.lock().read(work)
    }

    /// The last command that was submitted.
    pub fn last(&self) -> LogIndex {
        self.core.log.last()
    }

    /// Waits until a command is on stable storage, which happens at once then.
    pub async fn synced(&self, index: LogIndex) -> Result<(), StoreError> {
        self.core.log.synced(index).await
    }

    /// Why the store takes nothing more, if so.
    pub fn failure(&self) -> Option<StoreError> {
        self.core.log.failure()
    }

    /// Waits until the store takes nothing more.
    pub async fn failed(&self) -> StoreError {
        self.core.log.failed().await
    }

    /// Takes nothing more from here on: somebody found the tables broken.
    pub fn fail(&self, error: &StoreError) {
        self.core.log.fail(error);
    }

    /// The tables as they are now, to be looked at in peace: see [`Snapshot`].
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let _turn = self.core.flushing.lock().await;
        self.core.flush_frozen().await.inspect_err(|error| self.core.log.fail(error))?;
        let core = self.core.clone();
        // Nothing is flushed meanwhile: view and position are of the same commit.
        self.core.runtime.blocking(move || Snapshot::of(&core.database)).await
    }

    /// By how much the file of the tables has grown since a snapshot was taken.
    pub fn growth_since(&self, snapshot: &Snapshot) -> Result<u64, StoreError> {
        Ok(self.core.database.bytes()?.saturating_sub(snapshot.file_bytes))
    }

    /// Writes everything to redb. Before an orderly end, so that the next start has nothing to replay.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.core.flush().await
    }
}

/// The tables as a commit to redb left them. Reading it disturbs nobody. What is replaced meanwhile keeps its place in the file until the
/// snapshot is dropped, so its holder watches [`Store::growth_since`].
pub struct Snapshot {
    view: View,
    pub position: Position,
    pub rows: u64,
    /// How large the file was.
    pub file_bytes: u64,
}

impl Snapshot {
    fn of(database: &Database) -> Result<Self, StoreError> {
        let view = database.view()?;
        Ok(Self { rows: view.rows()?, position: database.position()?, file_bytes: database.bytes()?, view })
    }
}

impl Reader for Snapshot {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Value>, StoreError> {
        self.view.get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], until: Option<&[u8]>, reverse: bool, visit: Visit<'_>) -> Result<(), StoreError> {
        self.view.scan(table, from, until, reverse, visit)
    }
}

fn apply<M: Machine>(state: &State, index: LogIndex, command: &M::Command) -> Result<(M::Outcome, Changes), StoreError> {
    state.read(|reader| {
        let mut batch = Batch::new(reader);
        let outcome = M::apply(&mut batch, index, command)?;
        Ok((outcome, batch.into_changes()))
    })
}

/// A directory's content, replayed. Dropped in this order.
struct Recovery {
    state: State,
    recovered: Recovered,
    database: Database,
    lock: Box<dyn Send + Sync>,
}

/// Everything of opening that blocks.
fn open_core<M: Machine>(runtime: Runtime, settings: StoreSettings) -> Result<Core, OpenError> {
    let Recovery { lock, database, state, recovered } = recover_state::<M>(&runtime, &settings)?;
    let log = CommandLog::open(runtime.clone(), settings.log_path(), settings.log_segment_bytes, recovered)?;
    Ok(Core {
        runtime,
        settings,
        log,
        database,
        state: Mutex::new(state),
        flushing: tokio::sync::Mutex::new(()),
        flush_wanted: Notify::new(),
        frozen: watch::channel(()).0,
        _lock: lock,
    })
}

fn recover_state<M: Machine>(runtime: &Runtime, settings: &StoreSettings) -> Result<Recovery, OpenError> {
    let (disk, log_path) = (&*runtime.disk, settings.log_path());
    make_directory(disk, &settings.directory)?;
    let lock = lock_directory(runtime, &settings.directory)?;
    make_directory(disk, &log_path)?;
    let database = Database::open(disk, &settings.tables_path(), settings.cache_bytes)?;
    let position = database.position()?;
    let mut state = State { active: Memtable::new(position), frozen: None, view: database.view()?, on_disk: position.applied };
    let recovered = recover(disk, &log_path, position.applied, &mut |index, payload| {
        let command: M::Command = codec::decode("a command of the log", payload).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let (_, changes) = apply::<M>(&state, index, &command)?;
        state.active.absorb(changes, Position { applied: index, at: M::time(&command) });
        if state.active.bytes() > settings.memtable_bytes { state.settle(&database) } else { Ok(()) }
    })?;
    report(&recovered, position.applied);
    Ok(Recovery { state, recovered, database, lock })
}

/// Looks at the store of a master that is not running. Repairs what a crash left, as a start would. Blocks.
pub fn read_offline<M: Machine, T>(
    runtime: &Runtime,
    settings: &StoreSettings,
    work: impl FnOnce(&dyn Reader, Position) -> T,
) -> Result<T, OpenError> {
    // The whole of it stays alive meanwhile: without the database, its views see nothing.
    let recovery = recover_state::<M>(runtime, settings)?;
    Ok(recovery.state.read(|reader| work(reader, recovery.state.active.position)))
}

/// Makes a directory, if it is missing, and its name durable. Blocks.
pub fn make_directory(disk: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    // The parent of a plain name is the empty path, which is the working directory.
    if !parent.as_os_str().is_empty() && !disk.exists(parent).map_err(|error| disk_error("look for", parent, &error))? {
        make_directory(disk, parent)?;
    }
    // Synced even if it was there: it may have been made a moment before a crash.
    let made = disk.create_directory_all(path).and_then(|()| disk.sync_directory(parent));
    made.map_err(|error| disk_error("make", path, &error))
}

fn report(recovered: &Recovered, applied: LogIndex) {
    let replayed = recovered.last.0 - applied.0;
    tracing::info!(%applied, replayed, last = %recovered.last, "the tables are loaded and the log is replayed");
}

/// Makes sure that no other master works on the directory, for as long as the result lives.
pub fn lock_directory(runtime: &Runtime, directory: &Path) -> Result<Box<dyn Send + Sync>, OpenError> {
    let path = directory.join("lock");
    runtime.disk.lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::InUse(directory.to_owned()),
        _ => OpenError::Store(disk_error("lock", &path, &error)),
    })
}

impl State {
    /// Writes the active memtable in place, while nobody else is there yet. A crash in between is harmless: the log still has all.
    fn settle(&mut self, database: &Database) -> Result<(), StoreError> {
        database.write(self.active.changes(), self.active.position)?;
        self.view = database.view()?;
        self.on_disk = self.active.position.applied;
        self.active = Memtable::new(self.active.position);
        Ok(())
    }
}

impl Core {
    fn has_room(&self) -> bool {
        self.state.lock().active.bytes() <= self.settings.memtable_bytes
    }

    async fn run_flushing(self: Arc<Self>) {
        while self.log.failure().is_none() {
            let wait = self.runtime.sleep(self.settings.flush_interval);
            tokio::select! {
                biased;
                () = self.flush_wanted.notified() => {}
                () = wait => {}
            }
            // A failure is noted in the log, which everybody watches.
            let _ = self.flush().await;
        }
    }

    async fn flush(self: &Arc<Self>) -> Result<(), StoreError> {
        let _turn = self.flushing.lock().await;
        self.flush_frozen().await.inspect_err(|error| self.log.fail(error))
    }

    async fn flush_frozen(self: &Arc<Self>) -> Result<(), StoreError> {
        let Some(frozen) = self.freeze() else { return Ok(()) };
        // The tables must never be ahead of the log: recovery takes a hole below them for a failed disk.
        self.log.synced(frozen.position.applied).await?;
        let core = self.clone();
        let applied = frozen.position.applied;
        let view = self.runtime.blocking(move || core.write_out(&frozen)).await?;
        let written = {
            let mut state = self.state.lock();
            state.on_disk = applied;
            let old_view = std::mem::replace(&mut state.view, view);
            (old_view, state.frozen.take())
        };
        // Giving back that many allocations takes long enough to be felt.
        self.runtime.executor.blocking(Box::new(move || drop(written)));
        Ok(())
    }

    /// What shall be written next; `None` if there was no command. Without changes it moves the position, so that the log is trimmed.
    fn freeze(&self) -> Option<Arc<Memtable>> {
        let mut state = self.state.lock();
        if state.frozen.is_none() && state.active.position.applied > state.on_disk {
            let next = Memtable::new(state.active.position);
            state.frozen = Some(Arc::new(std::mem::replace(&mut state.active, next)));
            self.frozen.send_replace(());
        }
        state.frozen.clone()
    }

    fn write_out(&self, frozen: &Memtable) -> Result<View, StoreError> {
        self.database.write(frozen.changes(), frozen.position)?;
        self.log.trim(frozen.position.applied)?;
        self.database.view()
    }
}

//! The master's log and tables. After any loss of power the tables are those after some command, which is not older than the last one that
//! was known to be synced, and they are sound.

use super::{Report, Subject};
use cairn_common::attributes::{FileKind, NewInode, Owner};
use cairn_common::extent::{ChunkInfo, Extent, NewChunk, SlotMask};
use cairn_common::ids::{ChunkId, Ino, MapEpoch, Sequence, SessionId};
use cairn_common::scheme::Scheme;
use cairn_common::time::Timestamp;
use cairn_common::wire::master::{FileCommit, Mutation, MutationReply, RenameMode, XattrMode};
use cairn_master::check::check;
use cairn_master::service::Namespace;
use cairn_master::state::command::NewCluster;
use cairn_master::state::{Command, Outcome, Stamped, read};
use cairn_master::store::tables::{Reader, StoreError, Table};
use cairn_master::store::{Store, StoreSettings};
use cairn_runtime::Runtime;
use std::hash::{DefaultHasher, Hasher};
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MUTATIONS: u64 = 70;
const SESSION: SessionId = SessionId(1);

/// Runs the workload with a crash after every `stride`th operation.
pub fn enumerate(seeds: Range<u64>, stride: u64) -> Report {
    super::enumerate(seeds, stride, LogAndTables::default)
}

/// What was submitted and what was promised.
#[derive(Default)]
struct Promises {
    /// Fingerprints of the tables after 0, 1, 2, ... commands.
    states: Vec<u64>,
    synced: u64,
}

#[derive(Default)]
struct LogAndTables {
    promises: Mutex<Promises>,
}

fn settings() -> StoreSettings {
    StoreSettings {
        log_segment_bytes: 4 << 10,
        memtable_bytes: 6 << 10,
        cache_bytes: 1 << 20,
        flush_interval: Duration::from_millis(30),
        ..StoreSettings::new("/master")
    }
}

fn fingerprint(reader: &dyn Reader) -> Result<u64, StoreError> {
    let mut digest = DefaultHasher::new();
    for table in Table::ALL {
        digest.write(table.name().as_bytes());
        reader.scan(*table, &[], None, false, &mut |key, value| {
            digest.write(key);
            digest.write(value);
            ControlFlow::Continue(())
        })?;
    }
    Ok(digest.finish())
}

impl LogAndTables {
    fn promises(&self) -> std::sync::MutexGuard<'_, Promises> {
        self.promises.lock().expect("nobody panics while holding it")
    }

    /// Submits a command; `None` once the store has failed.
    async fn submit(&self, runtime: &Runtime, store: &Store<Namespace>, command: Command) -> Option<Outcome> {
        store.admit().await.ok()?;
        let stamped = Stamped { at: store.next_time(runtime.wall()), command };
        let (outcome, index) = store.submit(&stamped).ok()?;
        let state = store.read(fingerprint).ok()?;
        self.promises().states.push(state);
        if index.0.is_multiple_of(5) {
            store.synced(index).await.ok()?;
            self.promises().synced = index.0;
        } else if index.0.is_multiple_of(7) {
            runtime.sleep(Duration::from_millis(25)).await;
        }
        Some(outcome)
    }

    async fn work_through(&self, runtime: &Runtime) -> Option<()> {
        let store = Store::<Namespace>::open(runtime.clone(), settings()).await.ok()?;
        let empty = store.read(fingerprint).ok()?;
        self.promises().states.push(empty);
        let new = NewCluster {
            cluster: [7; 16],
            pool_name: "main".to_owned(),
            scheme: Scheme::copies(2),
            prefix_bits: 1,
            root_owner: Owner { uid: 0, gid: 0 },
            placement_seed: 1,
        };
        self.submit(runtime, &store, Command::Initialise(new)).await?;
        let open = Command::OpenSession { previous: None, description: String::new(), open: Vec::new() };
        self.submit(runtime, &store, open).await?;
        let mut files = Vec::new();
        for number in 1..=MUTATIONS {
            let epoch = store.read(read::map_epoch).ok()?;
            let mutation = mutation(number, &files, epoch, store.next_time(runtime.wall()));
            if number.is_multiple_of(3) {
                // Done twice it would show, unlike a mutation.
                self.submit(runtime, &store, Command::SkipNumbers).await?;
            }
            let sequence = Sequence(number);
            let acknowledged = Sequence(number - 1);
            let command = Command::Mutate { session: SESSION, sequence, acknowledged, holders: Vec::new(), mutation };
            if let Outcome::Mutated(MutationReply::Inode(attributes)) = self.submit(runtime, &store, command).await?
                && attributes.kind == FileKind::Regular
            {
                files.push(attributes.ino);
            }
        }
        store.flush().await.ok()
    }
}

/// A bit of everything, in a fixed order.
fn mutation(number: u64, files: &[Ino], epoch: MapEpoch, ticket: Timestamp) -> Mutation {
    let file = files.get((number as usize * 7) % files.len().max(1)).copied();
    let name = |number: u64| format!("name-{number}").into_bytes();
    match (number % 6, file) {
        (1 | 2, Some(ino)) => {
            let id = ChunkId([number as u8; 32]);
            let info =
                ChunkInfo { id, bytes: 4096, pool: read::DEFAULT_POOL, scheme: Scheme::copies(2), slots: SlotMask::from_slots([0, 1, 2]) };
            let extent = Extent { file_offset: number * 1000, bytes: 4000, chunk: id, chunk_offset: 0 };
            let files = vec![FileCommit { ino, extents: vec![extent], size_at_least: 0, mtime: ticket }];
            Mutation::Commit { files, chunks: vec![NewChunk { info, epoch, ticket }] }
        }
        (3, _) => Mutation::Rename {
            from_parent: Ino::ROOT,
            from_name: name(number - 3),
            to_parent: Ino::ROOT,
            to_name: name(number),
            mode: RenameMode::Replace,
        },
        (4, _) => Mutation::Unlink { parent: Ino::ROOT, name: name(number / 2) },
        (5, Some(ino)) => Mutation::SetXattr { ino, name: b"user.note".to_vec(), value: vec![number as u8; 300], mode: XattrMode::Set },
        _ => {
            let owner = Owner { uid: 1, gid: 2 };
            let inode = NewInode { kind: FileKind::Regular, mode: 0o644, owner, rdev: 0, symlink_target: Vec::new(), umask: 0 };
            Mutation::Create { parent: Ino::ROOT, name: name(number), inode, open: false, or_existing: false }
        }
    }
}

impl Subject for LogAndTables {
    async fn work(self: Arc<Self>, runtime: Runtime) {
        // A failure of the disk ends the work; what was promised until then counts.
        let _ = self.work_through(&runtime).await;
    }

    async fn recover(self: Arc<Self>, runtime: Runtime) -> Vec<String> {
        let store = match Store::<Namespace>::open(runtime.clone(), settings()).await {
            Ok(store) => store,
            Err(error) => return vec![format!("the master does not start: {error}")],
        };
        let mut violations = Vec::new();
        let last = store.last().0;
        let (state, problems) = match (store.read(fingerprint), store.read(check)) {
            (Ok(state), Ok(problems)) => (state, problems),
            (state, problems) => return vec![format!("the tables can't be read: {state:?}, {problems:?}")],
        };
        let promises = self.promises();
        if last < promises.synced {
            violations.push(format!("command {} was synced, and the last one is {last}", promises.synced));
        }
        if promises.states.get(last as usize).is_some_and(|expected| *expected != state) {
            violations.push(format!("the tables after command {last} are not what they were"));
        }
        if last > 0 {
            violations.extend(problems);
        }
        violations
    }
}

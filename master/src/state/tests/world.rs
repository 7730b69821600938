//! A cluster in memory that commands are applied to, and shorthands for them.

use crate::check::check;
use crate::state::command::{Command, NewCluster, NewPool, Stamped};
use crate::state::outcome::Outcome;
use crate::state::record::Rules;
use crate::state::{apply, read};
use crate::store::tables::{Batch, MemoryTables, Table};
use cairn_common::attributes::{AttributeChange, Attributes, FileKind, NewInode, Owner};
use cairn_common::extent::{ChunkInfo, Extent, NewChunk, SlotMask};
use cairn_common::ids::{ChunkId, Incarnation, Ino, LogIndex, MapEpoch, PoolId, Sequence, SessionId};
use cairn_common::limits::DELETION_GRACE;
use cairn_common::scheme::Scheme;
use cairn_common::time::Timestamp;
use cairn_common::wire::master::{FileCommit, MasterError, Mutation, MutationReply, TargetAnnouncement};
use std::net::SocketAddr;
use std::time::Duration;

/// Two sessions that every world has.
pub const ALICE: SessionId = SessionId(1);
pub const BOB: SessionId = SessionId(2);
pub const CHUNK_BYTES: u32 = 64;

/// Few extents are many here.
pub const RULES: Rules = Rules {
    deletion_grace: DELETION_GRACE,
    window_many: 8,
    window_too_many: 12,
    window_patience: Duration::from_secs(120),
    sparse_patience: Duration::from_secs(300),
};

pub struct World {
    pub tables: MemoryTables,
    pub index: LogIndex,
    pub at: Timestamp,
    pub sequence: u64,
}

impl World {
    pub fn new() -> Self {
        let mut world = Self { tables: MemoryTables::new(), index: LogIndex::ZERO, at: Timestamp::from_parts(1_000_000, 0), sequence: 0 };
        let new = NewCluster {
            cluster: [7; 16],
            pool_name: "main".to_owned(),
            scheme: Scheme::new(4, 2).unwrap(),
            prefix_bits: 3,
            root_owner: Owner { uid: 0, gid: 0 },
            placement_seed: 42,
        };
        assert_eq!(world.apply(Command::SetRules(RULES)), Outcome::Done);
        assert_eq!(world.apply(Command::Initialise(new)), Outcome::Done);
        for session in [ALICE, BOB] {
            let opened = world.apply(Command::OpenSession { previous: None, description: "test".to_owned(), open: Vec::new() });
            assert!(matches!(opened, Outcome::Session { session: given, resumed: false, .. } if given == session));
        }
        world
    }

    /// Applies a command once. A refusal must not change anything but the stored result.
    pub fn step(&mut self, command: Command) -> Outcome {
        self.index = self.index.next();
        self.at = self.at.plus(Duration::from_millis(1));
        let mut batch = Batch::new(&self.tables);
        let outcome = apply(&mut batch, self.index, &Stamped { at: self.at, command }).expect("memory does not fail");
        let changes = batch.into_changes();
        if matches!(outcome, Outcome::Refused(_)) {
            let touched: Vec<_> = changes.clone().into_iter().filter(|(table, _, _)| *table != Table::Results).collect();
            assert!(touched.is_empty(), "{outcome:?} changed {touched:?}");
        }
        self.tables.commit(changes);
        outcome
    }

    /// Applies a command until it is done.
    pub fn apply(&mut self, command: Command) -> Outcome {
        for _ in 0..10_000 {
            match self.step(command.clone()) {
                Outcome::Again => {}
                outcome => return outcome,
            }
        }
        panic!("{command:?} does not end");
    }

    pub fn command(&mut self, mutation: Mutation, holders: &[SessionId]) -> Command {
        self.sequence += 1;
        let sequence = Sequence(self.sequence);
        let acknowledged = Sequence(self.sequence.saturating_sub(3));
        Command::Mutate { session: ALICE, sequence, acknowledged, holders: holders.to_vec(), mutation }
    }

    pub fn mutate_held(&mut self, mutation: Mutation, holders: &[SessionId]) -> Result<MutationReply, MasterError> {
        let command = self.command(mutation, holders);
        match self.apply(command) {
            Outcome::Mutated(reply) => Ok(reply),
            Outcome::Refused(error) => Err(error),
            other => panic!("a mutation came to {other:?}"),
        }
    }

    pub fn mutate(&mut self, mutation: Mutation) -> Result<MutationReply, MasterError> {
        self.mutate_held(mutation, &[])
    }

    /// Does what must succeed and answers the attributes in the reply.
    pub fn change(&mut self, mutation: Mutation) -> Attributes {
        match self.mutate(mutation).unwrap() {
            MutationReply::Inode(attributes) | MutationReply::Removed(attributes) => attributes,
            other => panic!("no attributes in {other:?}"),
        }
    }

    pub fn make(&mut self, parent: Ino, name: &str, kind: FileKind) -> Ino {
        self.change(create(parent, name, kind)).ino
    }

    pub fn file(&mut self, name: &str) -> Ino {
        self.make(Ino::ROOT, name, FileKind::Regular)
    }

    pub fn directory(&mut self, name: &str) -> Ino {
        self.make(Ino::ROOT, name, FileKind::Directory)
    }

    pub fn attributes(&self, ino: Ino) -> Attributes {
        read::attributes(&self.tables, ino).unwrap()
    }

    /// Writes `bytes` of a chunk at `offset` of a file, new if need be.
    pub fn write(&mut self, ino: Ino, offset: u64, bytes: u32, chunk: u8, chunk_offset: u32) -> Result<Attributes, MasterError> {
        let extent = Extent { file_offset: offset, bytes, chunk: chunk_id(chunk), chunk_offset };
        let commit = self.commit(ino, vec![extent]);
        match self.mutate(commit)? {
            MutationReply::Committed(mut answers) => Ok(answers.remove(0)?),
            other => panic!("a commit came to {other:?}"),
        }
    }

    /// A commit for one file, with all its chunks as new ones.
    pub fn commit(&self, ino: Ino, extents: Vec<Extent>) -> Mutation {
        let mut ids: Vec<_> = extents.iter().map(|extent| extent.chunk).collect();
        ids.sort();
        ids.dedup();
        let chunks = ids.into_iter().map(|id| self.new_chunk(id)).collect();
        Mutation::Commit { files: vec![FileCommit { ino, extents, size_at_least: 0, mtime: self.at }], chunks }
    }

    pub fn new_chunk(&self, id: ChunkId) -> NewChunk {
        self.new_chunk_in(id, read::DEFAULT_POOL)
    }

    /// Copies, as many as the pool's scheme wants.
    pub fn new_chunk_in(&self, id: ChunkId, pool: PoolId) -> NewChunk {
        let parity = self.scheme(pool).parity_shards();
        let slots = if pool == read::DEFAULT_POOL { SlotMask::from_slots([0, 2, 5]) } else { SlotMask::from_slots(0..=parity) };
        let info = ChunkInfo { id, bytes: CHUNK_BYTES, pool, scheme: Scheme::copies(parity), slots };
        NewChunk { info, epoch: self.epoch(), ticket: self.at }
    }

    pub fn scheme(&self, pool: PoolId) -> Scheme {
        read::pools(&self.tables).unwrap().into_iter().find(|(id, _)| *id == pool).expect("there is such a pool").1.scheme
    }

    /// A chunkserver with some disks and labels.
    pub fn register(&mut self, name: &str, disks: u8, labels: &[(&str, &str)]) {
        let targets = (0..disks).map(|disk| {
            let mut uuid = [disk; 16];
            uuid[..name.len()].copy_from_slice(name.as_bytes());
            TargetAnnouncement { uuid, id: None, capacity_bytes: 1 << 30 }
        });
        let registered = self.apply(Command::RegisterServer {
            name: name.to_owned(),
            address: SocketAddr::from(([10, 0, 0, 1], 7450)),
            incarnation: Incarnation(1),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            targets: targets.collect(),
        });
        assert!(matches!(registered, Outcome::Registered(_)), "{registered:?}");
    }

    pub fn create_pool(&mut self, name: &str, scheme: &str, labels: &[(&str, &str)]) -> Result<PoolId, MasterError> {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let new = NewPool { name: name.to_owned(), scheme: scheme.parse().unwrap(), labels, prefix_bits: 2, placement_seed: 7 };
        match self.apply(Command::CreatePool(new)) {
            Outcome::PoolCreated { pool } => Ok(pool),
            Outcome::Refused(error) => Err(error),
            other => panic!("a new pool came to {other:?}"),
        }
    }

    pub fn epoch(&self) -> MapEpoch {
        read::map_epoch(&self.tables).unwrap()
    }

    /// Finishes all background removal.
    pub fn shrink_all(&mut self) {
        for ino in read::shrinking(&self.tables, usize::MAX).unwrap() {
            assert_eq!(self.apply(Command::Shrink { ino }), Outcome::Done);
        }
    }

    #[track_caller]
    pub fn assert_sound(&self) {
        assert_eq!(check(&self.tables).unwrap(), Vec::<String>::new());
    }
}

pub fn chunk_id(number: u8) -> ChunkId {
    ChunkId([number; 32])
}

pub fn new_inode(kind: FileKind) -> NewInode {
    let symlink_target = if kind == FileKind::Symlink { b"there".to_vec() } else { Vec::new() };
    NewInode { kind, mode: 0o640, owner: Owner { uid: 10, gid: 20 }, rdev: 0, symlink_target, umask: 0 }
}

pub fn create(parent: Ino, name: &str, kind: FileKind) -> Mutation {
    Mutation::Create { parent, name: name.into(), inode: new_inode(kind), open: false, or_existing: false }
}

pub fn set_size(ino: Ino, size: u64) -> Mutation {
    Mutation::SetAttributes { ino, change: AttributeChange { size: Some(size), ..AttributeChange::default() } }
}

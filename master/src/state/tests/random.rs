//! Random mutations, compared with the reference model: each answer, then the whole final state; the tables must be sound at
//! the end, counts exact, and a second run must give the same tables.

use super::model::Model;
use super::world::{ALICE, BOB, CHUNK_BYTES, World, chunk_id, new_inode};
use crate::check::check;
use crate::state::command::Command;
use crate::state::outcome::Outcome;
use crate::state::read;
use crate::store::tables::MemoryTables;
use cairn_common::attributes::{AttributeChange, Attributes, FileKind, NewInode, TimeChange};
use cairn_common::error::FsError;
use cairn_common::extent::{Extent, NewChunk};
use cairn_common::ids::{ChunkId, DirCookie, Ino, PoolId, SessionId};
use cairn_common::time::Timestamp;
use cairn_common::wire::master::{FileCommit, FileCompaction, MasterError, Mutation, MutationReply, RenameMode, XattrMode};
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::{prop_assert_eq, proptest};
use std::time::Duration;

/// Which inode: mostly one that fits, now and then any number at all.
#[derive(Debug, Clone, Copy)]
struct Pick(u16);

/// Offset, length, chunk and offset in the chunk.
type DrawnExtent = (u8, u8, u8, u8);

/// A file of a commit: which, its extents, and how far it reaches.
type DrawnFile = (Pick, Vec<DrawnExtent>, u8);

#[derive(Debug, Clone)]
enum Action {
    Create { parent: Pick, name: u8, kind: FileKind, set_gid: bool, or_existing: bool },
    CreateUnnamed { parent: Pick },
    Link { ino: Pick, parent: Pick, name: u8 },
    Remove { parent: Pick, name: u8, is_directory: bool, held: u8 },
    Rename { from: (Pick, u8), to: (Pick, u8), mode: RenameMode, held: u8 },
    Truncate { ino: Pick, size: u8 },
    Change { ino: Pick, what: u8 },
    SetXattr { ino: Pick, name: u8, mode: XattrMode },
    RemoveXattr { ino: Pick, name: u8 },
    Commit { files: Vec<DrawnFile> },
    Punch { ino: Pick, offset: u8, bytes: u8, extend: bool },
    Copy { from: (Pick, u8), to: (Pick, u8), bytes: u8 },
    Compact { files: Vec<(Pick, u8, u8, bool)>, chunk: u8 },
    Close { session: SessionId, ino: Pick },
    Comeback { session: SessionId },
    Shrink { steps: u8 },
    ForgetChunks,
    SetPolicy { ino: Pick, pool: u8 },
}

fn pick() -> impl Strategy<Value = Pick> {
    any::<u16>().prop_map(Pick)
}

fn name() -> impl Strategy<Value = u8> {
    0..5u8
}

fn place() -> impl Strategy<Value = (Pick, u8)> {
    (pick(), name())
}

fn kind() -> impl Strategy<Value = FileKind> {
    prop_oneof![
        4 => Just(FileKind::Regular),
        4 => Just(FileKind::Directory),
        1 => Just(FileKind::Symlink),
        1 => Just(FileKind::Fifo),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let rename_mode = prop_oneof![3 => Just(RenameMode::Replace), 1 => Just(RenameMode::NoReplace), 2 => Just(RenameMode::Exchange)];
    let xattr_mode = prop_oneof![Just(XattrMode::Set), Just(XattrMode::Create), Just(XattrMode::Replace)];
    let extents = proptest::collection::vec((any::<u8>(), 1..24u8, 0..5u8, any::<u8>()), 0..12);
    let session = prop_oneof![Just(ALICE), Just(BOB)];
    prop_oneof![
        8 => (pick(), name(), kind(), any::<bool>(), any::<bool>())
            .prop_map(|(parent, name, kind, set_gid, or_existing)| Action::Create { parent, name, kind, set_gid, or_existing }),
        1 => pick().prop_map(|parent| Action::CreateUnnamed { parent }),
        2 => (pick(), pick(), name()).prop_map(|(ino, parent, name)| Action::Link { ino, parent, name }),
        4 => (pick(), name(), any::<bool>(), 0..4u8)
            .prop_map(|(parent, name, is_directory, held)| Action::Remove { parent, name, is_directory, held }),
        6 => (place(), place(), rename_mode, 0..4u8).prop_map(|(from, to, mode, held)| Action::Rename { from, to, mode, held }),
        3 => (pick(), any::<u8>()).prop_map(|(ino, size)| Action::Truncate { ino, size }),
        2 => (pick(), any::<u8>()).prop_map(|(ino, what)| Action::Change { ino, what }),
        2 => (pick(), name(), xattr_mode).prop_map(|(ino, name, mode)| Action::SetXattr { ino, name, mode }),
        1 => (pick(), name()).prop_map(|(ino, name)| Action::RemoveXattr { ino, name }),
        8 => proptest::collection::vec((pick(), extents, any::<u8>()), 1..4).prop_map(|files| Action::Commit { files }),
        2 => (pick(), any::<u8>(), 1..=255u8, any::<bool>())
            .prop_map(|(ino, offset, bytes, extend)| Action::Punch { ino, offset, bytes, extend }),
        4 => ((pick(), any::<u8>()), (pick(), any::<u8>()), any::<u8>()).prop_map(|(from, to, bytes)| Action::Copy { from, to, bytes }),
        6 => (proptest::collection::vec((pick(), any::<u8>(), any::<u8>(), proptest::bool::weighted(0.2)), 1..4), 0..3u8)
            .prop_map(|(files, chunk)| Action::Compact { files, chunk }),
        2 => (session.clone(), pick()).prop_map(|(session, ino)| Action::Close { session, ino }),
        1 => session.prop_map(|session| Action::Comeback { session }),
        1 => (0..3u8).prop_map(|steps| Action::Shrink { steps }),
        1 => Just(Action::ForgetChunks),
        3 => (pick(), 0..5u8).prop_map(|(ino, pool)| Action::SetPolicy { ino, pool }),
    ]
}

/// The machine and the model side by side.
struct Pair {
    world: World,
    model: Model,
}

impl Pair {
    fn new() -> Self {
        let mut world = World::new();
        for name in ["a", "b", "c"] {
            world.register(name, 2, &[("media", "ssd")]);
        }
        assert_eq!(world.create_pool("thin", "2+1", &[]), Ok(PoolId(2)));
        assert_eq!(world.create_pool("fast", "1+2", &[("media", "ssd")]), Ok(PoolId(3)));
        let model = Model::new(world.attributes(Ino::ROOT));
        Self { world, model }
    }

    fn resolve(&self, pick: Pick, wanted: FileKind) -> Ino {
        let fitting: Vec<Ino> = self.model.nodes.keys().copied().filter(|ino| self.model.kind(*ino) == Some(wanted)).collect();
        let at = usize::from(pick.0 / 16);
        match fitting.get(at % fitting.len().max(1)) {
            Some(ino) if !pick.0.is_multiple_of(16) => *ino,
            _ => Ino(1 + at as u64 % self.model.next_ino),
        }
    }

    fn run(&mut self, action: &Action) {
        match action {
            Action::Close { session, ino } => {
                let ino = self.resolve(*ino, FileKind::Regular);
                self.model.release(*session, ino);
                let done = self.world.apply(Command::DropHolders { session: *session, inodes: vec![ino] });
                assert!(matches!(done, Outcome::Gone { .. }));
            }
            Action::Comeback { session } => self.come_back(*session),
            Action::Shrink { steps } => {
                for ino in read::shrinking(&self.world.tables, usize::from(*steps)).unwrap() {
                    self.world.step(Command::Shrink { ino });
                }
            }
            Action::ForgetChunks => {
                self.world.at = self.world.at.plus(Duration::from_secs(7 * 60));
                let chunks = read::forgettable_chunks(&self.world.tables, self.world.at, 2).unwrap();
                self.world.apply(Command::ForgetChunks { chunks });
            }
            mutating => {
                if let Some((mutation, holders)) = self.mutation(mutating) {
                    self.compare(mutation, &holders);
                }
            }
        }
    }

    /// A session returns and has nothing open any more.
    fn come_back(&mut self, session: SessionId) {
        let held = read::orphans(&self.world.tables, session, usize::MAX).unwrap();
        for ino in held {
            self.model.release(session, ino);
        }
        let back = self.world.apply(Command::OpenSession { previous: Some(session), description: "back".to_owned(), open: Vec::new() });
        assert!(matches!(back, Outcome::Session { session: same, resumed: true, .. } if same == session));
    }

    fn compare(&mut self, mutation: Mutation, holders: &[SessionId]) {
        let command = self.world.command(mutation.clone(), holders);
        let outcome = self.world.apply(command.clone());
        if let Outcome::Refused(MasterError::PutElsewhere { chunks }) = outcome {
            assert!(!matches!(mutation, Mutation::CommitSynced { .. }), "it is told once: {mutation:?}");
            return self.compare(self.put_elsewhere(mutation, &chunks), holders);
        }
        // Time as the last step, the one that did it, had it.
        let mut expected = self.model.mutate(self.world.at, ALICE, holders, &mutation);
        let actual = match outcome.clone() {
            Outcome::Mutated(reply) => Ok(plain(reply)),
            Outcome::Refused(MasterError::Fs(error)) => Err(error),
            other => panic!("{mutation:?} came to {other:?}"),
        };
        if let (Ok(MutationReply::Copied { bytes, .. }), Ok(MutationReply::Copied { bytes: all, .. })) = (&actual, &expected)
            && bytes < all
        {
            expected = self.cut_short(&mutation, *bytes);
        }
        assert_eq!(actual, expected, "{mutation:?}");
        // A retry gets the first answer and changes nothing.
        let before = self.world.tables.clone();
        assert_eq!(self.world.apply(command), outcome);
        assert_eq!(self.world.tables, before);
    }

    /// The same with chunks that are elsewhere, and stable.
    fn put_elsewhere(&self, mutation: Mutation, elsewhere: &[(ChunkId, PoolId)]) -> Mutation {
        let renew = |mut chunks: Vec<NewChunk>| {
            for (id, pool) in elsewhere {
                *chunks.iter_mut().find(|chunk| chunk.info.id == *id).expect("it is of the commit") = self.world.new_chunk_in(*id, *pool);
            }
            chunks
        };
        match mutation {
            Mutation::Commit { files, chunks } => Mutation::CommitSynced { files, chunks: renew(chunks) },
            Mutation::Compact { files, chunks } => Mutation::Compact { files, chunks: renew(chunks) },
            other => panic!("{other:?} puts nothing"),
        }
    }

    /// The pool of a file, if it is there.
    fn pool(&self, ino: Ino) -> PoolId {
        self.model.kind(ino).and_then(|_| self.model.attributes(ino).pool).unwrap_or(read::DEFAULT_POOL)
    }

    /// Of these files' pools the one that protects best.
    fn best_pool(&self, files: impl Iterator<Item = Ino>) -> PoolId {
        files.map(|ino| self.pool(ino)).max_by_key(|pool| self.world.scheme(*pool).parity_shards()).unwrap_or(read::DEFAULT_POOL)
    }

    /// The machine may copy less than asked; then the model must not have copied more.
    fn cut_short(&mut self, mutation: &Mutation, copied: u64) -> Result<MutationReply, FsError> {
        let Mutation::CopyRange { to, to_offset, .. } = mutation else { panic!("not a copy") };
        // Take the rest of the destination from the machine: `compare_state` at the end looks at the copied part.
        let size = read::attributes(&self.world.tables, *to).unwrap().size;
        let actual = self.content(*to, size);
        let node = self.model.nodes.get_mut(to).unwrap();
        let end = (*to_offset + copied) as usize;
        assert_eq!(node.content[..end], actual[..end]);
        node.content = actual;
        Ok(MutationReply::Copied { bytes: copied, to: self.model.attributes(*to) })
    }

    /// What each byte of a file is, from all pages of its extents.
    fn content(&self, ino: Ino, size: u64) -> Vec<Option<(ChunkId, u32)>> {
        let mut content = vec![None; size as usize];
        let mut from = 0;
        loop {
            let page = read::extents(&self.world.tables, ino, from, u64::MAX, 3).unwrap();
            for extent in &page.extents {
                assert!(page.chunks.iter().any(|chunk| chunk.id == extent.chunk));
                for byte in 0..extent.bytes {
                    let cell = &mut content[extent.file_offset as usize + byte as usize];
                    assert_eq!(cell.replace((extent.chunk, extent.chunk_offset + byte)), None);
                }
            }
            match page.more_from {
                Some(next) => from = next,
                None => return content,
            }
        }
    }

    fn mutation(&self, action: &Action) -> Option<(Mutation, Vec<SessionId>)> {
        let directory = |pick: &Pick| self.resolve(*pick, FileKind::Directory);
        let file = |pick: &Pick| self.resolve(*pick, FileKind::Regular);
        let name = |number: &u8| format!("name {number}").into_bytes();
        let holders = |held: &u8| [ALICE, BOB].into_iter().filter(|session| u64::from(*held) & session.0 != 0).collect();
        let mutation = match action {
            Action::Create { parent, name: number, kind, set_gid, or_existing } => {
                let mode = if *set_gid { 0o2750 } else { 0o640 };
                let inode = NewInode { mode, ..new_inode(*kind) };
                Mutation::Create { parent: directory(parent), name: name(number), inode, open: false, or_existing: *or_existing }
            }
            Action::CreateUnnamed { parent } => Mutation::CreateUnnamed { parent: directory(parent), inode: new_inode(FileKind::Regular) },
            Action::Link { ino, parent, name: number } => Mutation::Link { ino: file(ino), parent: directory(parent), name: name(number) },
            Action::Remove { parent, name: number, is_directory, held } => {
                let (parent, name) = (directory(parent), name(number));
                let mutation = if *is_directory { Mutation::RemoveDirectory { parent, name } } else { Mutation::Unlink { parent, name } };
                return Some((mutation, holders(held)));
            }
            Action::Rename { from, to, mode, held } => {
                let mutation = Mutation::Rename {
                    from_parent: directory(&from.0),
                    from_name: name(&from.1),
                    to_parent: directory(&to.0),
                    to_name: name(&to.1),
                    mode: *mode,
                };
                return Some((mutation, holders(held)));
            }
            Action::Truncate { ino, size } => {
                let change = AttributeChange { size: Some(u64::from(*size)), ..AttributeChange::default() };
                Mutation::SetAttributes { ino: file(ino), change }
            }
            Action::Change { ino, what } => Mutation::SetAttributes { ino: self.resolve(*ino, FileKind::Directory), change: change(*what) },
            Action::SetXattr { ino, name: number, mode } => {
                Mutation::SetXattr { ino: file(ino), name: name(number), value: vec![*number; 3], mode: *mode }
            }
            Action::RemoveXattr { ino, name: number } => Mutation::RemoveXattr { ino: file(ino), name: name(number) },
            Action::Commit { files } => {
                let files: Vec<_> = files.iter().map(|(ino, extents, size)| file_commit(file(ino), extents, *size)).collect();
                let mut ids: Vec<_> = files.iter().flat_map(|file| &file.extents).map(|extent| extent.chunk).collect();
                ids.sort();
                ids.dedup();
                let new_chunk = |id: ChunkId| {
                    let users = files.iter().filter(|file| file.extents.iter().any(|extent| extent.chunk == id)).map(|file| file.ino);
                    self.world.new_chunk_in(id, self.best_pool(users))
                };
                let chunks = ids.into_iter().map(new_chunk).collect();
                Mutation::Commit { files, chunks }
            }
            Action::Punch { ino, offset, bytes, extend } => {
                Mutation::PunchHole { ino: file(ino), offset: u64::from(*offset), bytes: u64::from(*bytes), extend: *extend }
            }
            Action::Copy { from, to, bytes } => Mutation::CopyRange {
                from: file(&from.0),
                from_offset: u64::from(from.1 / 2),
                to: file(&to.0),
                to_offset: u64::from(to.1),
                bytes: u64::from(*bytes),
            },
            Action::SetPolicy { ino, pool } => {
                Mutation::SetPolicy { ino: directory(ino), pool: Some(PoolId(u32::from(*pool))).filter(|pool| (1..4).contains(&pool.0)) }
            }
            Action::Compact { files, chunk } => self.compaction(files, chunk_id(10 + chunk)),
            Action::Close { .. } | Action::Comeback { .. } | Action::Shrink { .. } | Action::ForgetChunks => return None,
        };
        Some((mutation, Vec::new()))
    }

    /// Puts what some ranges hold into one chunk. What was found may have changed since: one extent then lies elsewhere.
    fn compaction(&self, drawn: &[(Pick, u8, u8, bool)], chunk: ChunkId) -> Mutation {
        let mut used = 0;
        let mut file = |(pick, offset, bytes, is_stale): &(Pick, u8, u8, bool)| {
            let ino = self.resolve(*pick, FileKind::Regular);
            let (start, end) = (u64::from(*offset / 2), u64::from(*offset / 2) + u64::from(*bytes));
            let mut old = read::extents(&self.world.tables, ino, start, end, 100).map_or_else(|_| Vec::new(), |page| page.extents);
            let mut new = Vec::new();
            old.retain(|extent| {
                let fits = used + extent.bytes <= CHUNK_BYTES;
                if fits {
                    new.push(Extent { chunk, chunk_offset: used, ..*extent });
                    used += extent.bytes;
                }
                fits
            });
            if let Some(extent) = old.first_mut().filter(|_| *is_stale) {
                extent.chunk_offset += 1;
            }
            FileCompaction { ino, old, new }
        };
        let files: Vec<FileCompaction> = drawn.iter().map(&mut file).collect();
        let is_used = files.iter().any(|file| !file.new.is_empty());
        let pool = self.best_pool(files.iter().filter(|file| !file.new.is_empty()).map(|file| file.ino));
        Mutation::Compact { files, chunks: is_used.then(|| self.world.new_chunk_in(chunk, pool)).into_iter().collect() }
    }

    /// Everything that can be read is as the model has it.
    fn compare_state(&mut self) {
        assert_eq!(check(&self.world.tables).unwrap(), Vec::<String>::new());
        assert_eq!(read::inodes(&self.world.tables).unwrap(), self.model.nodes.len() as u64);
        for (ino, node) in &self.model.nodes {
            let attributes = self.world.attributes(*ino);
            let expected = self.model.attributes(*ino);
            assert_eq!(bare(attributes.clone()), expected);
            self.check_protection(*ino, &attributes);
            match attributes.kind {
                FileKind::Regular => assert_eq!(self.content(*ino, attributes.size), node.content),
                FileKind::Symlink => assert_eq!(read::read_link(&self.world.tables, *ino).unwrap(), node.target),
                FileKind::Directory => self.compare_listing(*ino, node.entries.clone().into_iter().collect()),
                _ => {}
            }
            let names: Vec<_> = node.xattrs.keys().cloned().collect();
            assert_eq!(read::list_xattr(&self.world.tables, *ino).unwrap(), names);
            for (name, value) in &node.xattrs {
                assert_eq!(&read::get_xattr(&self.world.tables, *ino, name).unwrap(), value);
            }
        }
        self.world.shrink_all();
        assert_eq!(check(&self.world.tables).unwrap(), Vec::<String>::new());
        for (ino, node) in &self.model.nodes {
            let mapped = node.content.iter().flatten().count() as u64;
            assert_eq!(self.world.attributes(*ino).allocated, mapped, "allocated of {ino}");
        }
    }

    /// Whoever had stored the content before: it survives what the file's pool promises.
    fn check_protection(&self, ino: Ino, attributes: &Attributes) {
        if attributes.kind != FileKind::Regular {
            return;
        }
        let wanted = self.world.scheme(attributes.pool.unwrap_or(read::DEFAULT_POOL)).parity_shards();
        for chunk in read::extents(&self.world.tables, ino, 0, u64::MAX, 1000).unwrap().chunks {
            assert!(self.world.scheme(chunk.pool).parity_shards() >= wanted, "{ino} of {:?} is in {chunk:?}", attributes.pool);
            assert_eq!(chunk.scheme.parity_shards(), self.world.scheme(chunk.pool).parity_shards());
        }
    }

    fn compare_listing(&self, ino: Ino, expected: Vec<(Vec<u8>, Ino)>) {
        let mut listed = Vec::new();
        let mut after = DirCookie(0);
        loop {
            let (entries, is_end) = read::read_directory(&self.world.tables, ino, after, 2, true).unwrap();
            for entry in entries {
                assert!(entry.cookie > after);
                after = entry.cookie;
                assert_eq!(entry.attributes, Some(self.world.attributes(entry.ino)));
                assert_eq!(read::lookup(&self.world.tables, ino, &entry.name).unwrap(), self.world.attributes(entry.ino));
                listed.push((entry.name, entry.ino));
            }
            if is_end {
                break;
            }
        }
        listed.sort();
        assert_eq!(listed, expected);
    }
}

fn bare(attributes: Attributes) -> Attributes {
    Attributes { version: 0, allocated: 0, ..attributes }
}

/// A reply without what the model does not know.
fn plain(reply: MutationReply) -> MutationReply {
    match reply {
        MutationReply::Inode(attributes) => MutationReply::Inode(bare(attributes)),
        MutationReply::Removed(attributes) => MutationReply::Removed(bare(attributes)),
        MutationReply::Done => MutationReply::Done,
        MutationReply::Committed(answers) => MutationReply::Committed(answers.into_iter().map(|answer| answer.map(bare)).collect()),
        MutationReply::Copied { bytes, to } => MutationReply::Copied { bytes, to: bare(to) },
        compacted @ MutationReply::Compacted { .. } => compacted,
    }
}

fn change(what: u8) -> AttributeChange {
    let bit = |bit: u8| what & 1 << bit != 0;
    let time = Timestamp::from_nanos(-i64::from(what));
    AttributeChange {
        mode: bit(0).then_some(0o2711),
        uid: bit(1).then_some(77),
        gid: bit(2).then_some(88),
        size: None,
        atime: bit(3).then_some(TimeChange::Now),
        mtime: bit(4).then_some(TimeChange::At(time)),
        ctime: bit(5).then_some(time),
    }
}

/// Extents of a commit must not overlap: those that would are left out.
fn file_commit(ino: Ino, drawn: &[DrawnExtent], size: u8) -> FileCommit {
    let mut extents: Vec<Extent> = Vec::new();
    for (offset, bytes, chunk, chunk_offset) in drawn {
        let chunk_offset = u32::from(*chunk_offset) % (CHUNK_BYTES - u32::from(*bytes));
        let extent = Extent { file_offset: u64::from(*offset), bytes: u32::from(*bytes), chunk: chunk_id(*chunk), chunk_offset };
        if extents.iter().all(|other| other.clip(&extent.file_range()).is_none()) {
            extents.push(extent);
        }
    }
    FileCommit { ino, extents, size_at_least: u64::from(size), mtime: Timestamp::from_nanos(i64::from(size)) }
}

fn run(actions: &[Action]) -> MemoryTables {
    let mut pair = Pair::new();
    for action in actions {
        pair.run(action);
    }
    let tables = pair.world.tables.clone();
    pair.compare_state();
    tables
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 256, ..Default::default() })]

    #[test]
    fn agrees_with_the_model(actions in proptest::collection::vec(action(), 1..120)) {
        let first = run(&actions);
        prop_assert_eq!(first, run(&actions));
    }
}

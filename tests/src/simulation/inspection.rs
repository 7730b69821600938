//! What is there when all is over: the tree and the files as a new client sees them, and then, with everybody stopped, the tables of the master and
//! the shards on the disks.

use super::client::list;
use super::history::Shared;
use super::machines::Machines;
use crate::cluster::{DATA_DIRECTORY, MASTER_DIRECTORY, SimCluster, trust};
use crate::reference::directory::{Node, Tree};
use crate::reference::file::{FileModel, Mismatch};
use cairn_chunkserver::Target;
use cairn_chunkserver::target::ClusterKey;
use cairn_client::{FileSystem, Handle, OpenFlags};
use cairn_common::attributes::FileKind;
use cairn_common::error::FsError;
use cairn_common::ids::{ChunkId, Ino, TargetId};
use cairn_common::map::ClusterMap;
use cairn_common::scheme::Scheme;
use cairn_common::wire::chunkserver::ShardKey;
use cairn_common::{extent::ChunkInfo, hash_tree};
use cairn_master::check::check;
use cairn_master::keys::Record;
use cairn_master::service::Namespace;
use cairn_master::state::read;
use cairn_master::state::record::ChunkRecord;
use cairn_master::store::tables::{Reader, StoreError, Table};
use cairn_master::store::{StoreSettings, read_offline};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::pin::Pin;

/// A file is read in pieces of this length, so that an error concerns no more than that.
const PIECE_BYTES: usize = 16 << 10;

/// A tree as it was found: a file by its inode.
#[derive(Clone, PartialEq, Eq)]
pub struct FoundTree(pub BTreeMap<String, FoundNode>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundNode {
    File(Ino),
    Symlink(String),
    Directory,
}

impl FoundTree {
    /// Whether it is what the model says: the same names, and the same names for one file.
    pub fn matches(&self, tree: &Tree) -> bool {
        let mut files = BTreeMap::new();
        self.0.len() == tree.len()
            && self.0.iter().all(|(path, found)| match (found, tree.get(path)) {
                (FoundNode::Directory, Some(Node::Directory)) => true,
                (FoundNode::Symlink(target), Some(Node::Symlink(expected))) => target == expected,
                (FoundNode::File(ino), Some(Node::File(file))) => *files.entry(file).or_insert(*ino) == *ino,
                _ => false,
            })
    }
}

impl fmt::Debug for FoundTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A shard where the map says that it is.
#[derive(Debug, Clone)]
pub struct FoundShard {
    pub index: u8,
    pub holder: Option<TargetId>,
    pub is_good: bool,
    pub answer: String,
}

/// A chunk of the table, with what is left of it.
pub struct FoundChunk {
    pub id: ChunkId,
    pub bytes: u32,
    pub scheme: Scheme,
    pub references: u64,
    pub shards: Vec<FoundShard>,
}

impl FoundChunk {
    /// Good shards.
    pub fn good(&self) -> usize {
        self.shards.iter().filter(|shard| shard.is_good).count()
    }

    /// Good shards that a reader needs.
    pub fn needed(&self) -> usize {
        let layout = self.scheme.layout(self.bytes);
        // Data shards beyond the end of a short chunk are known: they are zero.
        usize::from(layout.occupied_data_shards().max(1))
    }
}

impl fmt::Display for FoundChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({}, {} bytes, {} references, {} good)", self.id, self.scheme, self.bytes, self.references, self.good())
    }
}

/// See the module.
#[derive(Default)]
pub struct Findings {
    /// By number of workplace.
    pub trees: BTreeMap<usize, FoundTree>,
    /// Directories that should be there and could not be read.
    pub unreadable: Vec<String>,
    pub mismatches: Vec<(String, Mismatch)>,
    pub chunks: Vec<FoundChunk>,
    pub queued_deletions: Vec<String>,
    pub table_problems: Vec<String>,
    pub shards_stored: BTreeMap<TargetId, u64>,
    /// Targets whose disks may have harmed what they hold.
    pub harmed: BTreeSet<TargetId>,
    pub had_blackout: bool,
    /// Nothing has ever failed.
    pub was_calm: bool,
    /// The grace period has passed since the last change.
    pub is_collected: bool,
}

impl Findings {
    /// Looks at everything through a client.
    pub async fn look_through(&mut self, shared: &Shared, fs: &FileSystem) {
        let places: Vec<String> = shared.history().workplaces.iter().map(|place| place.name.clone()).collect();
        for (number, name) in places.iter().enumerate() {
            match read_tree(fs, name).await {
                Ok(tree) => self.look_at_files(shared, fs, number, tree).await,
                // Its making may have been what failed; then nothing was ever done in it.
                Err(FsError::NotFound) if shared.history().workplaces[number].files.is_empty() => {}
                Err(error) => self.unreadable.push(format!("{name} can't be read: {error}")),
            }
        }
        let batons: Vec<(String, FileModel)> = {
            let history = shared.history();
            history.baton.past.iter().cloned().chain([(history.baton.name(), history.baton.file.clone())]).collect()
        };
        for (name, model) in batons {
            match fs.lookup(Ino::ROOT, name.as_bytes()).await {
                Ok(attributes) => self.compare(fs, name, attributes.ino, &model).await,
                Err(FsError::NotFound) if model.compare(0, Some(&[]), 0, true).is_none() => {}
                Err(error) => self.unreadable.push(format!("{name} can't be found: {error}")),
            }
        }
    }

    async fn look_at_files(&mut self, shared: &Shared, fs: &FileSystem, number: usize, tree: FoundTree) {
        let (name, possible) = {
            let history = shared.history();
            let place = &history.workplaces[number];
            (place.name.clone(), place.names.possible())
        };
        // Several trees of the model may have the same names, for other files: the one that fits best is meant.
        let mut least: Option<Vec<(String, Mismatch)>> = None;
        for expected in possible.iter().filter(|expected| tree.matches(expected)) {
            let before = self.mismatches.len();
            for (path, node) in expected {
                if let (Node::File(file), Some(FoundNode::File(ino))) = (node, tree.0.get(path)) {
                    let model = shared.history().workplaces[number].file(*file).clone();
                    self.compare(fs, format!("{name}/{path}"), *ino, &model).await;
                }
            }
            let found = self.mismatches.split_off(before);
            if least.as_ref().is_none_or(|least| found.len() < least.len()) {
                least = Some(found);
            }
            if least.as_ref().is_some_and(Vec::is_empty) {
                break;
            }
        }
        self.mismatches.extend(least.unwrap_or_default());
        self.trees.insert(number, tree);
    }

    /// Compares a file with its model.
    async fn compare(&mut self, fs: &FileSystem, path: String, ino: Ino, model: &FileModel) {
        let opened = match fs.open(ino, OpenFlags::READ).await {
            Ok(opened) => opened,
            Err(error) => return self.unreadable.push(format!("{path} can't be opened: {error}")),
        };
        let size = opened.attributes.size;
        let mut offset = 0;
        loop {
            let wanted = PIECE_BYTES.min((size - offset) as usize);
            let at_end = offset + wanted as u64 == size;
            let mismatch = match fs.read(opened.handle, offset, wanted).await {
                Ok(piece) => model.compare(offset, Some(&piece), wanted as u64, at_end),
                Err(_) => compare_apart(fs, opened.handle, model, offset..offset + wanted as u64).await,
            };
            if let Some(mismatch) = mismatch {
                self.mismatches.push((path, mismatch));
                break;
            }
            offset += wanted as u64;
            if at_end {
                break;
            }
        }
        if let Err(error) = fs.release(opened.handle) {
            self.unreadable.push(format!("a file can't be closed: {error}"));
        }
    }

    /// Looks at the disks, after everybody was stopped.
    pub async fn look_at_disks(&mut self, machines: &Machines) {
        let tables = match read_tables(&machines.cluster) {
            Ok(tables) => tables,
            Err(error) => return self.table_problems.push(format!("the tables of the master can't be read: {error}")),
        };
        let targets = self.open_targets(machines).await;
        self.table_problems.extend(tables.problems);
        self.queued_deletions = tables.deletions;
        for (info, references) in tables.chunks {
            let shards = look_at_shards(&tables.map, &targets, &info).await;
            self.chunks.push(FoundChunk { id: info.id, bytes: info.bytes, scheme: info.scheme, references, shards });
        }
    }

    async fn open_targets(&mut self, machines: &Machines) -> BTreeMap<TargetId, Target> {
        let mut targets = BTreeMap::new();
        for (number, node) in machines.cluster.chunkservers.iter().enumerate() {
            let runtime = node.runtime();
            let settings = machines.cluster.chunkserver_settings(number).target;
            let opened = Target::open(&runtime, PathBuf::from(DATA_DIRECTORY), ClusterKey::of(&trust()), settings).await;
            match opened {
                Ok(target) => {
                    let Some(id) = target.identity().id else { continue };
                    self.shards_stored.insert(id, target.status().shards);
                    if machines.shared.plan.weak.contains(&number) && !self.was_calm {
                        self.harmed.insert(id);
                    }
                    targets.insert(id, target);
                }
                Err(error) => self.table_problems.push(format!("the target of {} does not open: {error}", node.name())),
            }
        }
        targets
    }
}

/// Where a piece can't be read as a whole, only that part of it may be at fault which was never promised to last.
async fn compare_apart(fs: &FileSystem, handle: Handle, model: &FileModel, piece: Range<u64>) -> Option<Mismatch> {
    for part in model.ranges(piece) {
        let len = part.end - part.start;
        let found = fs.read(handle, part.start, len as usize).await.ok();
        let mismatch = model.compare(part.start, found.as_deref(), len, false);
        if mismatch.is_some() {
            return mismatch;
        }
    }
    None
}

async fn read_tree(fs: &FileSystem, name: &str) -> Result<FoundTree, FsError> {
    let mut found = BTreeMap::new();
    let root = fs.lookup(Ino::ROOT, name.as_bytes()).await?;
    walk(fs, root.ino, String::new(), &mut found).await?;
    Ok(FoundTree(found))
}

fn walk<'a>(
    fs: &'a FileSystem,
    directory: Ino,
    prefix: String,
    found: &'a mut BTreeMap<String, FoundNode>,
) -> Pin<Box<dyn Future<Output = Result<(), FsError>> + 'a>> {
    Box::pin(async move {
        for (name, ino, kind) in list(fs, directory).await? {
            let path = format!("{prefix}{name}");
            let node = match kind {
                FileKind::Directory => {
                    walk(fs, ino, format!("{path}/"), found).await?;
                    FoundNode::Directory
                }
                FileKind::Symlink => FoundNode::Symlink(String::from_utf8_lossy(&fs.read_link(ino).await?).into_owned()),
                _ => FoundNode::File(ino),
            };
            found.insert(path, node);
        }
        Ok(())
    })
}

/// What the tables of the master say.
struct Tables {
    problems: Vec<String>,
    chunks: Vec<(ChunkInfo, u64)>,
    deletions: Vec<String>,
    map: ClusterMap,
}

fn read_tables(cluster: &SimCluster) -> Result<Tables, String> {
    let runtime = cluster.master.runtime();
    let settings = StoreSettings { log_segment_bytes: cluster.master_settings().log_segment_bytes, ..StoreSettings::new(MASTER_DIRECTORY) };
    let tables = read_offline::<Namespace, _>(&runtime, &settings, |reader, _| gather(reader)).map_err(|error| error.to_string())?;
    tables.map_err(|error| error.to_string())
}

fn gather(reader: &dyn Reader) -> Result<Tables, StoreError> {
    let mut chunks = Vec::new();
    let mut broken = None;
    reader.scan(Table::Chunks, &[], None, false, &mut |key, value| {
        match cairn_master::keys::parse_chunk(key).and_then(|id| Ok((id, ChunkRecord::decode(value)?))) {
            Ok((id, record)) => chunks.push((record.stored.info(id), record.references)),
            Err(error) => broken = Some(error),
        }
        ControlFlow::Continue(())
    })?;
    if let Some(error) = broken {
        return Err(error);
    }
    let deletions = read::deletions(reader, usize::MAX)?.iter().map(|deletion| format!("{deletion:?}")).collect();
    Ok(Tables { problems: check(reader)?, chunks, deletions, map: read::map(reader)? })
}

/// Reads every shard of a chunk where the map says that it is, now or before a move, and checks its bytes.
async fn look_at_shards(map: &ClusterMap, targets: &BTreeMap<TargetId, Target>, info: &ChunkInfo) -> Vec<FoundShard> {
    let mut shards = Vec::new();
    let Some(pool) = map.pool(info.pool) else { return shards };
    let group = pool.group_of(info.id);
    for (index, slot) in (0u8..).zip(info.slots.slots()).filter(|(index, _)| info.scheme.layout(info.bytes).is_stored(*index)) {
        let slot = group.slots.get(usize::from(slot)).cloned().unwrap_or_default();
        let mut shard = FoundShard { index, holder: slot.holder, is_good: false, answer: "nobody holds the slot".to_owned() };
        for holder in [slot.holder, slot.previous].into_iter().flatten() {
            let Some(target) = targets.get(&holder) else { continue };
            let answer = read_shard(target, info, index).await;
            if shard.is_good {
                break;
            }
            (shard.is_good, shard.answer) = (answer.is_ok(), answer.err().unwrap_or_default());
        }
        shards.push(shard);
    }
    shards
}

async fn read_shard(target: &Target, info: &ChunkInfo, index: u8) -> Result<(), String> {
    let layout = info.scheme.layout(info.bytes);
    let key = ShardKey { chunk: info.id, scheme: info.scheme, index };
    let read = target.get(key, 0, layout.stored_bytes(index), true).await;
    let (bytes, proof) = read.map_err(|error| error.to_string())?;
    if let Some(proof) = proof {
        let index = if info.scheme.is_copies() { 0 } else { index };
        hash_tree::verify_proof(layout, info.id, index, &proof).map_err(|error| error.to_string())?;
        hash_tree::verify_blocks(layout, index, &proof.blocks, 0, &bytes).map_err(|error| error.to_string())?;
    }
    Ok(())
}

//! What `cairn info` and `cairn locate` print.

use super::place::Place;
use super::survey::{Chunk, Shard, Survey};
use crate::commands::layout::Sight;
use cairn_common::attributes::FileKind;
use cairn_common::ids::TargetId;
use cairn_common::map::ClusterMap;
use cairn_objects::size::human;
use data_encoding::HEXLOWER;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What `info --json` prints. Fields are only ever added.
#[derive(Debug, Serialize)]
pub struct Report {
    path: String,
    inode: u64,
    kind: &'static str,
    mode: String,
    uid: u32,
    gid: u32,
    links: u32,
    size: u64,
    /// Bytes of the file that are stored; the rest are holes.
    stored_bytes: u64,
    extents: Vec<ExtentReport>,
    chunks: Vec<ChunkReport>,
    space: Space,
}

/// Real space. A chunk may hold pieces of many files, and bytes that no file uses any more.
#[derive(Debug, Default, Serialize)]
struct Space {
    /// All shards that are there, of all chunks that the file has bytes in.
    chunks_bytes: u64,
    /// The file's part of it, by its bytes in each chunk.
    own_bytes: u64,
}

#[derive(Debug, Serialize)]
struct ExtentReport {
    offset: u64,
    bytes: u64,
    chunk: String,
    chunk_offset: u32,
}

#[derive(Debug, Serialize)]
struct ChunkReport {
    id: String,
    bytes: u32,
    scheme: String,
    pool: String,
    shards_there: usize,
    shards: Vec<ShardReport>,
}

#[derive(Debug, Serialize)]
struct ShardReport {
    index: u8,
    kind: &'static str,
    bytes: u64,
    state: String,
    chunkserver: Option<String>,
    disk: Option<String>,
    address: Option<String>,
    labels: BTreeMap<String, String>,
}

impl Report {
    pub fn new(place: &Place, survey: &Survey, map: &ClusterMap) -> Self {
        let attributes = &place.attributes;
        Self {
            path: place.path.clone(),
            inode: attributes.ino.0,
            kind: kind(attributes.kind),
            mode: format!("{:04o}", attributes.mode & 0o7777),
            uid: attributes.uid,
            gid: attributes.gid,
            links: attributes.nlink,
            size: attributes.size,
            stored_bytes: survey.extents.iter().map(|extent| u64::from(extent.bytes)).sum(),
            extents: survey.extents.iter().map(ExtentReport::new).collect(),
            chunks: survey.chunks.values().map(|chunk| ChunkReport::new(chunk, map)).collect(),
            space: Space::new(survey),
        }
    }

    pub fn text(&self, with_chunks: bool) -> String {
        let Self { path, inode, kind, mode, uid, gid, links, size, .. } = self;
        let mut text = format!("{path}\n  {kind}, inode {inode}, mode {mode}, owner {uid}:{gid}, {links} links, {size} bytes\n");
        if *kind != "file" {
            return text;
        }
        let holes = size.saturating_sub(self.stored_bytes);
        text += &format!("  {} stored in {} extents of {} chunks", human(self.stored_bytes), self.extents.len(), self.chunks.len());
        text += &if holes > 0 { format!(", {} of holes\n", human(holes)) } else { "\n".to_owned() };
        let (own, all) = (self.space.own_bytes, self.space.chunks_bytes);
        text += &format!("  real space: {} of its own; the chunks take {}, with what else is in them\n", human(own), human(all));
        let (there, wanted): (usize, usize) = self
            .chunks
            .iter()
            .map(|chunk| (chunk.shards_there, chunk.shards.len()))
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        text += &format!("  {there} of {wanted} shards are there\n");
        if with_chunks {
            self.chunks.iter().for_each(|chunk| text += &self.chunk_text(chunk));
        } else if !self.chunks.is_empty() {
            text += "  (--chunks shows where each shard is)\n";
        }
        text
    }

    fn chunk_text(&self, chunk: &ChunkReport) -> String {
        let mut text = format!("\n  chunk {} ({}, {}, pool {})\n", &chunk.id[..16], human(chunk.bytes.into()), chunk.scheme, chunk.pool);
        for extent in self.extents.iter().filter(|extent| extent.chunk == chunk.id) {
            text += &format!("    file {}+{} is at {}\n", extent.offset, extent.bytes, extent.chunk_offset);
        }
        for shard in &chunk.shards {
            text += &format!(
                "    shard {} ({}, {}) {}: {} on {} at {}\n",
                shard.index,
                shard.kind,
                human(shard.bytes),
                shard.state,
                shard.disk.as_deref().unwrap_or("no disk"),
                shard.chunkserver.as_deref().unwrap_or("no chunkserver"),
                shard.address.as_deref().unwrap_or("-"),
            );
        }
        text
    }
}

fn kind(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Regular => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symbolic link",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
        FileKind::CharDevice => "character device",
        FileKind::BlockDevice => "block device",
    }
}

impl Space {
    fn new(survey: &Survey) -> Self {
        let mut own: BTreeMap<_, u64> = BTreeMap::new();
        for extent in &survey.extents {
            *own.entry(extent.chunk).or_default() += u64::from(extent.bytes);
        }
        let mut space = Self::default();
        for (id, chunk) in &survey.chunks {
            let raw: u64 = chunk.shards.iter().filter(|shard| shard.sight == Sight::Good).map(|shard| shard.bytes).sum();
            let used = own.get(id).copied().unwrap_or(0).min(chunk.info.bytes.into());
            space.chunks_bytes += raw;
            space.own_bytes += (u128::from(raw) * u128::from(used) / u128::from(chunk.info.bytes.max(1))) as u64;
        }
        space
    }
}

impl ExtentReport {
    fn new(extent: &cairn_common::extent::Extent) -> Self {
        let chunk = HEXLOWER.encode(&extent.chunk.0);
        Self { offset: extent.file_offset, bytes: extent.bytes.into(), chunk, chunk_offset: extent.chunk_offset }
    }
}

impl ChunkReport {
    fn new(chunk: &Chunk, map: &ClusterMap) -> Self {
        let info = &chunk.info;
        Self {
            id: HEXLOWER.encode(&info.id.0),
            bytes: info.bytes,
            scheme: info.scheme.to_string(),
            pool: map.pool(info.pool).map_or_else(|| info.pool.to_string(), |pool| pool.name.clone()),
            shards_there: chunk.shards.iter().filter(|shard| shard.sight == Sight::Good).count(),
            shards: chunk.shards.iter().map(|shard| ShardReport::new(shard, chunk, map)).collect(),
        }
    }
}

impl ShardReport {
    fn new(shard: &Shard, chunk: &Chunk, map: &ClusterMap) -> Self {
        let target = shard.target.and_then(|id| map.target(id));
        let is_data = shard.index < chunk.info.scheme.data_shards();
        Self {
            index: shard.index,
            kind: if chunk.info.scheme.is_copies() {
                "copy"
            } else if is_data {
                "data"
            } else {
                "parity"
            },
            bytes: shard.bytes,
            state: sight(&shard.sight),
            chunkserver: target.map(|target| target.server.to_string()),
            disk: shard.target.map(|id| id.to_string()),
            address: target.map(|target| target.address.to_string()),
            labels: target.map(|target| target.labels.clone()).unwrap_or_default(),
        }
    }
}

fn sight(sight: &Sight) -> String {
    match sight {
        Sight::Good => "is there".to_owned(),
        Sight::Missing => "is missing".to_owned(),
        Sight::Damaged => "is damaged".to_owned(),
        Sight::Away(reason) => format!("is not known ({reason})"),
        Sight::Busy => "is not known (the disk is busy)".to_owned(),
        Sight::Vacant => "has no place".to_owned(),
    }
}

/// What `locate --json` prints of each path. Fields are only ever added.
#[derive(Debug, Serialize)]
pub struct Located {
    path: String,
    inode: u64,
    chunkservers: Vec<LocatedServer>,
}

#[derive(Debug, Default, Serialize)]
struct LocatedServer {
    chunkserver: String,
    address: String,
    disks: BTreeSet<String>,
    labels: BTreeMap<String, String>,
    shards: u64,
    data_shards: u64,
    bytes: u64,
}

impl Located {
    pub fn new(place: &Place, survey: &Survey, map: &ClusterMap) -> Self {
        let mut servers: BTreeMap<cairn_common::ids::ServerId, LocatedServer> = BTreeMap::new();
        for chunk in survey.chunks.values() {
            for shard in chunk.shards.iter().filter(|shard| shard.sight == Sight::Good) {
                let Some(target) = shard.target.and_then(|id: TargetId| map.target(id)) else { continue };
                let server = servers.entry(target.server).or_insert_with(|| LocatedServer {
                    chunkserver: target.server.to_string(),
                    address: target.address.to_string(),
                    labels: target.labels.clone(),
                    ..LocatedServer::default()
                });
                server.disks.insert(target.id.to_string());
                server.shards += 1;
                server.data_shards += u64::from(shard.index < chunk.info.scheme.data_shards());
                server.bytes += shard.bytes;
            }
        }
        Self { path: place.path.clone(), inode: place.attributes.ino.0, chunkservers: servers.into_values().collect() }
    }

    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.path);
        if self.chunkservers.is_empty() {
            text += "  has no content that is stored\n";
        }
        for server in &self.chunkservers {
            let labels: Vec<_> = server.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let disks = server.disks.iter().map(String::as_str).collect::<Vec<_>>().join(",");
            let LocatedServer { chunkserver, address, shards, data_shards, bytes, .. } = server;
            text += &format!(
                "  {chunkserver:<6} {address:<22} {disks:<8} {shards:>6} shards ({data_shards} of data) {:>10}  {}\n",
                human(*bytes),
                labels.join(" ")
            );
        }
        text
    }
}

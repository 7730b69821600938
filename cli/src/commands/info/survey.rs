//! The extents of a file, their chunks, and which disk has which shard.

use crate::commands::layout::{Place as Spot, Sight, places, reachable};
use crate::commands::link::{Link, Unanswered};
use anyhow::{Result, bail};
use cairn_common::attributes::{Attributes, FileKind};
use cairn_common::extent::{ChunkInfo, Extent};
use cairn_common::ids::{ChunkId, TargetId};
use cairn_common::limits::CHECKED_KEYS_MAX;
use cairn_common::wire::chunkserver::{ChunkserverReply, ChunkserverRequest, ShardKey};
use cairn_common::wire::master::{MasterReply, MasterRequest};
use futures_util::future::join_all;
use std::collections::BTreeMap;

/// A shard, where it should be, and whether it is there.
#[derive(Debug, Clone)]
pub struct Shard {
    pub index: u8,
    /// The disk that has it, or else the one that should.
    pub target: Option<TargetId>,
    pub bytes: u64,
    pub sight: Sight,
}

/// A chunk of the file.
#[derive(Debug, Clone)]
pub struct Chunk {
    pub info: ChunkInfo,
    pub shards: Vec<Shard>,
}

/// All of a file.
#[derive(Debug, Default)]
pub struct Survey {
    pub extents: Vec<Extent>,
    pub chunks: BTreeMap<ChunkId, Chunk>,
}

impl Survey {
    pub async fn make(link: &mut Link, attributes: &Attributes) -> Result<Self> {
        link.renew_map().await?;
        let mut survey = Self::default();
        if attributes.kind != FileKind::Regular {
            return Ok(survey);
        }
        let infos = survey.fetch_extents(link, attributes).await?;
        let spots: Vec<Spot> = infos.values().flat_map(|chunk| places(&link.map, chunk)).collect();
        let mut seen = look(link, &spots, |spot| spot.slot.holder).await;
        // While a slot moves, most of its shards are still where they were.
        let moving: Vec<Spot> =
            spots.iter().copied().filter(|spot| spot.slot.previous.is_some() && seen[&spot.key].1 != Sight::Good).collect();
        seen.extend(look(link, &moving, |spot| spot.slot.previous).await.into_iter().filter(|(_, (_, sight))| *sight == Sight::Good));
        for info in infos.into_values() {
            let shards = places(&link.map, &info).into_iter().map(|spot| shard(&info, &spot, &seen)).collect();
            survey.chunks.insert(info.id, Chunk { info, shards });
        }
        Ok(survey)
    }

    async fn fetch_extents(&mut self, link: &mut Link, attributes: &Attributes) -> Result<BTreeMap<ChunkId, ChunkInfo>> {
        let mut infos = BTreeMap::new();
        let mut from = Some(0);
        while let Some(offset) = from {
            let request = MasterRequest::Extents { ino: attributes.ino, offset, end: u64::MAX };
            let MasterReply::Extents(page) = link.ask(&request).await? else {
                bail!("the master answered something else to a question for extents");
            };
            infos.extend(page.chunks.iter().map(|chunk| (chunk.id, *chunk)));
            self.extents.extend(page.extents);
            from = page.more_from.filter(|next| *next > offset);
        }
        Ok(infos)
    }
}

type Seen = BTreeMap<ShardKey, (Option<TargetId>, Sight)>;

fn shard(chunk: &ChunkInfo, spot: &Spot, seen: &Seen) -> Shard {
    let layout = chunk.scheme.layout(chunk.bytes.max(1));
    let (target, sight) = seen.get(&spot.key).cloned().unwrap_or((spot.slot.holder, Sight::Vacant));
    Shard { index: spot.key.index, target, bytes: u64::from(layout.stored_bytes(spot.key.index)), sight }
}

/// Asks the disks for their shards, all side by side.
async fn look(link: &Link, spots: &[Spot], disk_of: impl Fn(&Spot) -> Option<TargetId>) -> Seen {
    let mut seen: Seen = spots.iter().map(|spot| (spot.key, (None, Sight::Vacant))).collect();
    let mut by_disk: BTreeMap<TargetId, Vec<ShardKey>> = BTreeMap::new();
    for spot in spots {
        if let Some(target) = disk_of(spot) {
            by_disk.entry(target).or_default().push(spot.key);
        }
    }
    let asked = by_disk.into_iter().map(|(target, keys)| async move { (target, ask_disk(link, target, &keys).await) });
    for (target, sights) in join_all(asked).await {
        seen.extend(sights.into_iter().map(|(key, sight)| (key, (Some(target), sight))));
    }
    seen
}

async fn ask_disk(link: &Link, target: TargetId, keys: &[ShardKey]) -> Vec<(ShardKey, Sight)> {
    let address = match reachable(&link.map, target) {
        Ok(found) => found.address,
        Err(reason) => return keys.iter().map(|key| (*key, Sight::Away(reason.clone()))).collect(),
    };
    let mut sights = Vec::with_capacity(keys.len());
    for keys in keys.chunks(CHECKED_KEYS_MAX) {
        let answer = link.ask_chunkserver(address, &ChunkserverRequest::Check { target, keys: keys.to_vec() }).await;
        sights.extend(match answer {
            Ok(ChunkserverReply::Checked { present }) if present.len() == keys.len() => {
                keys.iter().zip(present).map(|(key, is_there)| (*key, if is_there { Sight::Good } else { Sight::Missing })).collect()
            }
            Ok(_) => unanswered(keys, &Sight::Away("it gave a strange answer".to_owned())),
            Err(Unanswered::Busy) => unanswered(keys, &Sight::Busy),
            Err(Unanswered::Away(reason)) => unanswered(keys, &Sight::Away(reason)),
        });
    }
    sights
}

fn unanswered(keys: &[ShardKey], sight: &Sight) -> Vec<(ShardKey, Sight)> {
    keys.iter().map(|key| (*key, sight.clone())).collect()
}

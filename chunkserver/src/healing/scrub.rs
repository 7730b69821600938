//! Reading and hashing every shard of a target, over and over, at a set pace. What is found damaged is rebuilt by
//! [`doubts`](super::doubts).
//!
//! | the scrub is | event | next |
//! |---|---|---|
//! | reading | the last shard was read | resting |
//! | resting | the rest is over | reading, from the first |
//!
//! Its position is kept in `scrub.json` in the target's directory. Lost in a crash: what was read in the last
//! `SAVE_INTERVAL`; it is read again.

use super::Healer;
use cairn_common::ids::ChunkId;
use cairn_common::limits::MIB;
use cairn_common::time::Timestamp;
use cairn_common::wire::chunkserver::ChunkserverError;
use cairn_runtime::Runtime;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const FILE: &str = "scrub.json";
const FILE_BYTES_MAX: usize = 4096;
const FORMAT_VERSION: u32 = 1;
/// In which time everything is read, if no rate is set.
const PASS: Duration = Duration::from_secs(14 * 24 * 3600);
/// The least rate, if none is set: little data is read more often than it must.
const FLOOR_BYTES_PER_SECOND: u64 = MIB;
/// How long the scrub rests after a pass: at a set rate, and else.
const REST_AT_SET_RATE: Duration = Duration::from_secs(10);
const REST: Duration = Duration::from_secs(24 * 3600);
/// Shards in one look at the index.
const PAGE: usize = 128;
const SAVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long to wait when the target does not answer.
const TROUBLE_PAUSE: Duration = Duration::from_secs(30);

/// Where the scrub of a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    /// Chunks before this one have been read in the present pass.
    next: ChunkId,
    passes: u64,
    /// Nothing is read before this time of the wall clock.
    rests_until: Timestamp,
}

/// The file as it stands on disk.
#[derive(Serialize, Deserialize)]
struct PositionFile {
    format: u32,
    next: String,
    passes: u64,
    rests_until: i64,
}

impl Position {
    const START: Position = Position { next: ChunkId([0; 32]), passes: 0, rests_until: Timestamp::EPOCH };

    /// A file that is missing or makes no sense costs a part of a pass.
    fn load(runtime: &Runtime, path: &Path) -> Self {
        let Ok(content) = runtime.disk.read(path, FILE_BYTES_MAX) else { return Self::START };
        Self::decode(&content).unwrap_or_else(|| {
            tracing::warn!("{} can't be read: the scrub begins anew", path.display());
            Self::START
        })
    }

    fn decode(content: &[u8]) -> Option<Self> {
        let file: PositionFile = serde_json::from_slice(content).ok().filter(|file: &PositionFile| file.format == FORMAT_VERSION)?;
        let next = HEXLOWER.decode(file.next.as_bytes()).ok()?.try_into().ok()?;
        Some(Self { next: ChunkId(next), passes: file.passes, rests_until: Timestamp::from_nanos(file.rests_until) })
    }

    fn encode(&self) -> Vec<u8> {
        let file = PositionFile {
            format: FORMAT_VERSION,
            next: HEXLOWER.encode(&self.next.0),
            passes: self.passes,
            rests_until: self.rests_until.nanos(),
        };
        serde_json::to_vec_pretty(&file).expect("plain data always encodes")
    }

    fn permille(&self) -> u16 {
        ((u64::from(self.next.prefix(16)) * 1000) >> 16) as u16
    }
}

impl Healer {
    /// The task of one target.
    pub(super) async fn scrub(self: Arc<Self>, number: usize) {
        let path = self.patient(number).target.directory().join(FILE);
        let (runtime, file) = (self.runtime.clone(), path.clone());
        let mut position = self.runtime.blocking(move || Position::load(&runtime, &file)).await;
        let mut saved = self.runtime.now();
        loop {
            self.patient(number).progress.set_scrub(position.passes, position.permille());
            let wall = self.runtime.wall();
            if position.rests_until > wall {
                // Never longer than usual: the wall clock may have been set back, or a rate been set since.
                let rest = position.rests_until.since(wall).min(self.rest());
                self.runtime.sleep(rest).await;
                position.rests_until = Timestamp::EPOCH;
            }
            match self.scrub_page(number, position.next).await {
                Ok(Some(next)) => position.next = next,
                Ok(None) => {
                    let rests_until = self.runtime.wall().plus(self.rest());
                    position = Position { passes: position.passes + 1, rests_until, ..Position::START };
                    tracing::info!("the scrub of {} has read everything", self.patient(number).target.directory().display());
                }
                Err(error) => {
                    tracing::warn!("the scrub of {} pauses: {error}", self.patient(number).target.directory().display());
                    self.runtime.sleep(TROUBLE_PAUSE).await;
                }
            }
            if position.next == Position::START.next || self.runtime.now().since(saved) >= SAVE_INTERVAL {
                saved = self.runtime.now();
                if let Err(error) = self.save(path.clone(), position).await {
                    tracing::warn!("{} can't be written: {error}", path.display());
                }
            }
        }
    }

    async fn save(&self, path: PathBuf, position: Position) -> io::Result<()> {
        let disk = self.runtime.disk.clone();
        self.runtime.blocking(move || disk.replace(&path, &position.encode())).await
    }

    /// Reads some shards from `from` on; where to go on, `None` after the last.
    async fn scrub_page(&self, number: usize, from: ChunkId) -> Result<Option<ChunkId>, ChunkserverError> {
        let patient = self.patient(number);
        let listing = patient.target.list(from, None, PAGE).await?;
        for shard in &listing.shards {
            let begun = self.runtime.now();
            let bytes = match patient.target.examine(shard.key).await {
                Ok(bytes) => u64::from(bytes),
                Err(ChunkserverError::Corrupt(_)) => {
                    patient.doubts.add(&[shard.key]);
                    0
                }
                // Deleted meanwhile, or busy: the next pass comes.
                Err(ChunkserverError::NoSuchShard(_) | ChunkserverError::Unavailable) => 0,
                Err(error) => return Err(error),
            };
            patient.progress.scrubbed(bytes);
            let due = begun.plus(self.time_for(number, bytes));
            self.runtime.clock.sleep_until(due).await;
        }
        Ok(listing.next)
    }

    fn rest(&self) -> Duration {
        if self.settings.scrub_bytes_per_second.is_some() { REST_AT_SET_RATE } else { REST }
    }

    /// How long reading so many bytes should take.
    fn time_for(&self, number: usize, bytes: u64) -> Duration {
        let used = self.patient(number).target.status().used_bytes;
        let rate = self.settings.scrub_bytes_per_second.unwrap_or((used / PASS.as_secs()).max(FLOOR_BYTES_PER_SECOND)).max(1);
        Duration::from_nanos(u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(rate)).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::Position;
    use cairn_common::ids::ChunkId;
    use cairn_common::time::Timestamp;

    #[test]
    fn the_position_reads_back_and_nonsense_is_refused() {
        let position = Position { next: ChunkId([0x80; 32]), passes: 7, rests_until: Timestamp::from_nanos(5) };
        assert_eq!(Position::decode(&position.encode()), Some(position));
        assert_eq!((position.permille(), Position::START.permille()), (501, 0));
        for wrong in
            ["", "{}", r#"{"format":1,"next":"zz","passes":1,"rests_until":0}"#, r#"{"format":9,"next":"","passes":1,"rests_until":0}"#]
        {
            assert_eq!(Position::decode(wrong.as_bytes()), None, "{wrong}");
        }
    }
}

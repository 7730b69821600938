//! One request for a range of one shard to one target, and the check of what comes back.

use super::compute::compute;
use super::doubts::Doubts;
use super::latency::Latency;
use super::limits::GET_LIMIT;
use super::proofs::ProofCache;
use bytes::Bytes;
use cairn_common::extent::ChunkInfo;
use cairn_common::hash_tree::{self, HashError};
use cairn_common::ids::{Hash, TargetId};
use cairn_common::limits::COPIES_BELOW_BYTES;
use cairn_common::planted::{Bug, is_planted};
use cairn_common::wire::chunkserver::{ChunkserverError, ChunkserverReply, ChunkserverRequest, ShardKey, ShardProof};
use cairn_runtime::Runtime;
use std::ops::Range;
use std::sync::Arc;

use crate::counters::Counts;
use crate::ports::{TargetCallError, Targets};

/// Why a target did not give good bytes.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{0}")]
    Call(#[from] TargetCallError),
    #[error("the answer does not match the chunk's id: {0}")]
    Wrong(#[from] HashError),
    #[error("the answer has {found} bytes instead of {expected}")]
    Length { expected: usize, found: usize },
    #[error("the answer is of another kind")]
    Kind,
    /// Told to all who waited for the same.
    #[error("{0}")]
    Shared(Arc<FetchError>),
}

impl FetchError {
    fn is_corruption(&self) -> bool {
        matches!(self, FetchError::Wrong(_) | FetchError::Call(TargetCallError::Refused(ChunkserverError::Corrupt(_))))
    }

    fn is_loss(&self) -> bool {
        matches!(self, FetchError::Call(TargetCallError::Refused(ChunkserverError::NoSuchShard(_))))
    }
}

/// Fetches and checks ranges of shards.
pub struct ShardFetch {
    pub runtime: Runtime,
    pub targets: Arc<dyn Targets>,
    pub proofs: ProofCache,
    pub latency: Latency,
    pub counts: Arc<Counts>,
    pub doubts: Doubts,
}

impl ShardFetch {
    /// A range of a shard: of a data shard checked, of parity as it comes.
    pub async fn shard(
        &self,
        chunk: &ChunkInfo,
        index: u8,
        target: TargetId,
        range: Range<u32>,
        is_data: bool,
    ) -> Result<Bytes, FetchError> {
        if is_data { self.data(chunk, index, target, range).await } else { self.parity(chunk, index, target, range).await }
    }

    /// A range of data shard `index` of a chunk, or of a copy, from a target that should hold it; checked against the chunk's id.
    /// The range lies on block boundaries, its end may be the shard's.
    pub async fn data(&self, chunk: &ChunkInfo, index: u8, target: TargetId, range: Range<u32>) -> Result<Bytes, FetchError> {
        let result = self.checked_data(chunk, index, target, range).await;
        self.note(chunk, index, target, result)
    }

    /// A range of a parity shard. It can't be checked by itself; what is decoded with it must be.
    pub async fn parity(&self, chunk: &ChunkInfo, index: u8, target: TargetId, range: Range<u32>) -> Result<Bytes, FetchError> {
        let result = self.get(chunk, index, target, range, false).await.map(|(bytes, _)| bytes);
        self.note(chunk, index, target, result)
    }

    /// The verified block hashes of data shard `lost`, as parity shard `parity` knows them.
    pub async fn blocks_from_parity(&self, chunk: &ChunkInfo, lost: u8, parity: u8, target: TargetId) -> Result<Arc<[Hash]>, FetchError> {
        let key = ShardKey { chunk: chunk.id, scheme: chunk.scheme, index: parity };
        let request = ChunkserverRequest::Proof { target, key, data_index: lost };
        let result = match self.targets.call(target, request, Bytes::new(), GET_LIMIT).await {
            Ok((ChunkserverReply::Proof { proof }, _)) => self.take_proof(chunk, lost, proof),
            Ok(_) => Err(FetchError::Kind),
            Err(error) => Err(error.into()),
        };
        self.note(chunk, parity, target, result)
    }

    async fn checked_data(&self, chunk: &ChunkInfo, index: u8, target: TargetId, range: Range<u32>) -> Result<Bytes, FetchError> {
        let is_whole_tiny = chunk.scheme.is_copies() && range == (0..chunk.bytes) && (chunk.bytes as usize) < COPIES_BELOW_BYTES;
        if is_whole_tiny {
            // The id is the hash of just these bytes: no proof needed.
            let (bytes, _) = self.get(chunk, index, target, range, false).await?;
            let found = hash_tree::chunk_id(&bytes);
            let expected = chunk.id;
            return if found == expected || is_planted(Bug::ReadNotVerified) {
                Ok(bytes)
            } else {
                Err(HashError::Chunk { expected, found }.into())
            };
        }
        let tree_index = if chunk.scheme.is_copies() { 0 } else { index };
        let known = self.proofs.get(chunk.id, chunk.scheme, tree_index);
        let (bytes, proof) = self.get(chunk, index, target, range.clone(), known.is_none()).await?;
        let blocks = match (known, proof) {
            (Some(blocks), _) => blocks,
            (None, Some(proof)) => self.take_proof(chunk, tree_index, proof)?,
            (None, None) => return Err(FetchError::Kind),
        };
        self.verify(chunk, tree_index, blocks, range.start, bytes).await
    }

    /// Bytes of data shard `index`, if they match its block hashes.
    pub async fn verify(&self, chunk: &ChunkInfo, index: u8, blocks: Arc<[Hash]>, offset: u32, bytes: Bytes) -> Result<Bytes, FetchError> {
        let layout = chunk.scheme.layout(chunk.bytes);
        let length = bytes.len();
        if is_planted(Bug::ReadNotVerified) {
            return Ok(bytes);
        }
        let work = move || hash_tree::verify_blocks(layout, index, &blocks, offset, &bytes).map(|()| bytes);
        Ok(compute(&self.runtime, length, work).await?)
    }

    fn take_proof(&self, chunk: &ChunkInfo, index: u8, proof: ShardProof) -> Result<Arc<[Hash]>, FetchError> {
        hash_tree::verify_proof(chunk.scheme.layout(chunk.bytes), chunk.id, index, &proof)?;
        let blocks: Arc<[Hash]> = proof.blocks.into();
        self.proofs.insert(chunk.id, chunk.scheme, index, Arc::clone(&blocks));
        Ok(blocks)
    }

    async fn get(
        &self,
        chunk: &ChunkInfo,
        index: u8,
        target: TargetId,
        range: Range<u32>,
        with_proof: bool,
    ) -> Result<(Bytes, Option<ShardProof>), FetchError> {
        let key = ShardKey { chunk: chunk.id, scheme: chunk.scheme, index };
        let expected = range.len();
        let request = ChunkserverRequest::Get { target, key, offset: range.start, bytes: expected as u32, with_proof };
        let start = self.runtime.now();
        self.counts.shard_reads.add(1);
        let (reply, body) = self.targets.call(target, request, Bytes::new(), GET_LIMIT).await?;
        let now = self.runtime.now();
        self.latency.record(target, now.since(start), now);
        match reply {
            ChunkserverReply::Data { .. } if body.len() != expected => Err(FetchError::Length { expected, found: body.len() }),
            ChunkserverReply::Data { proof } => Ok((body, proof)),
            _ => Err(FetchError::Kind),
        }
    }

    fn note<T>(&self, chunk: &ChunkInfo, index: u8, target: TargetId, result: Result<T, FetchError>) -> Result<T, FetchError> {
        if let Err(error) = &result {
            self.counts.shard_reads_failed.add(1);
            self.counts.shards_corrupt.add(u64::from(error.is_corruption()));
            if error.is_loss() {
                // Very many while a slot is on its way to a new holder.
                tracing::debug!(chunk = ?chunk.id, shard = index, scheme = %chunk.scheme, %target, %error, "a shard is missing");
            } else {
                tracing::warn!(chunk = ?chunk.id, shard = index, scheme = %chunk.scheme, %target, %error, "a shard could not be read");
            }
            if error.is_corruption() || error.is_loss() {
                let key = ShardKey { chunk: chunk.id, scheme: chunk.scheme, index };
                self.doubts.tell(&self.runtime, &self.targets, target, key);
            }
        }
        result
    }
}

//! Whether two files of one length have the same content. Chunk ids are hashes, so most of what is in CairnFS need not be read for that.

use super::content_map::ContentMap;
use super::engine::Engine;
use super::spot::Spot;
use super::traits::Traits;
use crate::content::PART_BYTES;
use crate::failure::Failure;
use crate::local;
use crate::place::RemotePath;
use crate::store::Follow;
use cairn_common::ids::{ChunkId, Ino};
use std::path::Path;
use std::sync::Arc;

impl Engine {
    /// Compares by hash. The traits are those of both, of which the sizes are the same.
    pub(super) async fn is_same_content(&self, one: (&Spot, &Traits), other: (&Spot, &Traits)) -> Result<bool, Failure> {
        match (one, other) {
            ((Spot::Local(local), _), (Spot::Remote(remote), traits)) | ((Spot::Remote(remote), traits), (Spot::Local(local), _)) => {
                self.is_local_like_remote(local, remote, traits).await
            }
            ((Spot::Remote(one), traits), (Spot::Remote(other), _)) => self.are_remote_alike(one, other, traits.size).await,
            _ => Ok(false),
        }
    }

    async fn is_local_like_remote(&self, local: &Path, remote: &RemotePath, traits: &Traits) -> Result<bool, Failure> {
        let path = local.to_owned();
        let source = Arc::new(self.store.runtime.blocking(move || local::Source::open(&path)).await?);
        let map = ContentMap::fetch(&self.store, remote, Ino(traits.identity.1), traits.size).await?;
        let found = self.store.find(remote, Follow::AllButLast).await?;
        let object = self.store.open(&found).await?;
        let step = self.store.fs.chunk_bytes_max(found.ino()) as u64;
        for start in (0..traits.size).step_by(step as usize) {
            self.stop.check(remote)?;
            let range = start..traits.size.min(start + step);
            let (source, wanted) = (Arc::clone(&source), range.clone());
            let read = move || {
                source
                    .read(wanted.start, (wanted.end - wanted.start) as usize)
                    .map(|bytes| (ChunkId(*blake3::hash(&bytes).as_bytes()), bytes))
            };
            let (hash, bytes) = self.store.runtime.blocking(read).await?;
            let is_same = match map.whole_chunk(&range) {
                Some(chunk) => chunk == hash,
                None => object.read(range.start, range.end - range.start).await?[..] == bytes[..],
            };
            if !is_same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn are_remote_alike(&self, one: &RemotePath, other: &RemotePath, size: u64) -> Result<bool, Failure> {
        let (one, other) = (self.store.find(one, Follow::AllButLast).await?, self.store.find(other, Follow::AllButLast).await?);
        let (one, other) = (self.store.open(&one).await?, self.store.open(&other).await?);
        for start in (0..size).step_by(PART_BYTES as usize) {
            self.stop.check(&one.path)?;
            if one.read(start, PART_BYTES).await? != other.read(start, PART_BYTES).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

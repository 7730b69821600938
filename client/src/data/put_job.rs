//! A put on its way: the runs of one or many files that become one chunk (seldom more).

use super::dirty::RunId;
use super::file::FileData;
use super::prepare::HashedChunk;
use bytes::Bytes;
use cairn_common::ids::{Ino, PoolId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A run that is part of a job.
pub struct Member {
    pub file: Arc<FileData>,
    pub run: RunId,
}

/// What is put.
#[derive(Debug, Clone)]
pub enum PutContent {
    /// One after the other in one chunk.
    Parts(Vec<Bytes>),
    /// A whole chunk of which the id is known.
    Hashed(HashedChunk),
}

/// Runs that are put together. Kept until all of them are committed, for they may have to be put again.
pub struct PutJob {
    pub content: PutContent,
    pub pool: PoolId,
    /// Make it stable with the put itself.
    pub sync: bool,
    pub members: Vec<Member>,
    under_way: AtomicBool,
}

impl PutJob {
    pub fn new(content: PutContent, pool: PoolId, sync: bool, members: Vec<Member>) -> Arc<Self> {
        Arc::new(Self { content, pool, sync, members, under_way: AtomicBool::new(false) })
    }

    /// Whether the caller shall do it: nobody else does at the moment.
    pub fn begin(&self) -> bool {
        !self.under_way.swap(true, Ordering::AcqRel)
    }

    pub fn end(&self) {
        self.under_way.store(false, Ordering::Release);
    }

    pub fn files(&self) -> Arc<[Ino]> {
        self.members.iter().map(|member| member.file.ino()).collect()
    }
}

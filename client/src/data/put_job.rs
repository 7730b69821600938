//! A put on its way: the runs of one or many files that become one chunk (seldom more).

use super::dirty::RunId;
use super::file::FileData;
use bytes::Bytes;
use cairn_common::ids::{Ino, PoolId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A run that is part of a job.
pub struct Member {
    pub file: Arc<FileData>,
    pub run: RunId,
}

/// Runs that are put together. Kept until all of them are committed, for they may have to be put again.
pub struct PutJob {
    pub parts: Vec<Bytes>,
    pub pool: PoolId,
    /// Make it stable with the put itself.
    pub sync: bool,
    pub members: Vec<Member>,
    under_way: AtomicBool,
}

impl PutJob {
    pub fn new(parts: Vec<Bytes>, pool: PoolId, sync: bool, members: Vec<Member>) -> Arc<Self> {
        Arc::new(Self { parts, pool, sync, members, under_way: AtomicBool::new(false) })
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

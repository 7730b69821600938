//! Ranges of files: fallocate, lseek for data and holes, copy_file_range.

use super::attributes::{Changed, unexpected};
use super::start::FileSystem;
use super::types::{AllocateMode, Handle, SeekTarget};
use crate::data::FileData;
use crate::ports::CommitError;
use cairn_common::error::FsError;
use cairn_common::limits::{FILE_BYTES_MAX, GIB};
use cairn_common::planted::{Bug, is_planted};
use cairn_common::wire::master::{FileCommit, Mutation, MutationReply, Puts};
use std::ops::Range;
use std::sync::Arc;

/// How far a search for data or a hole looks at first. In a hole, each step is twice as long as the one before: a file may be one of 8 EiB.
const SEEK_STEP_BYTES: u64 = GIB;

fn range_of(offset: u64, len: u64) -> Result<Range<u64>, FsError> {
    let end = offset.checked_add(len).filter(|end| *end <= FILE_BYTES_MAX).ok_or(FsError::FileTooLarge)?;
    if len == 0 { Err(FsError::Invalid) } else { Ok(offset..end) }
}

impl FileSystem {
    /// fallocate(2). Space is never reserved: a later write may still find the disks full.
    pub async fn allocate(&self, handle: Handle, mode: AllocateMode, offset: u64, len: u64) -> Result<(), FsError> {
        let open = self.writable(handle)?;
        let range = range_of(offset, len)?;
        match mode {
            AllocateMode::KeepSize => Ok(()),
            AllocateMode::Extend => self.extend(&open.file, range.end).await,
            AllocateMode::PunchHole => self.punch(&open.file, range, false).await,
            AllocateMode::ZeroRange { keep_size } => self.punch(&open.file, range, !keep_size).await,
        }
    }

    /// A commit without data: sizes grow by the greater of two, so that a writer elsewhere loses nothing.
    async fn extend(&self, file: &Arc<FileData>, end: u64) -> Result<(), FsError> {
        self.freshen(file).await?;
        if file.local_size() >= end {
            return Ok(());
        }
        loop {
            let session = self.0.metadata.session().await?;
            let growth = FileCommit { ino: file.ino(), extents: Vec::new(), size_at_least: end, mtime: self.0.runtime.wall() };
            let attributes = match self.0.metadata.commit(vec![growth], Vec::new(), Puts::Unsynced, false, session).await {
                Ok(mut results) => results.pop().ok_or_else(|| unexpected("fallocate"))??,
                // Done twice it changes nothing.
                Err(CommitError::SessionGone) => continue,
                Err(CommitError::Fs(error)) => return Err(error),
                Err(CommitError::PutAgain | CommitError::PutElsewhere(_)) => return Err(unexpected("fallocate")),
            };
            file.refreshed(&attributes);
            return Ok(());
        }
    }

    async fn punch(&self, file: &Arc<FileData>, range: Range<u64>, extend: bool) -> Result<(), FsError> {
        let (hold, this, file) = (file.hold().await, self.clone(), Arc::clone(file));
        self.to_its_end("fallocate", async move {
            let changing = this.0.cache.changing(file.ino());
            let mutation = Mutation::PunchHole { ino: file.ino(), offset: range.start, bytes: range.end - range.start, extend };
            let Changed { reply: MutationReply::Inode(attributes), known } = this.change(changing, mutation, "fallocate").await? else {
                return Err(unexpected("fallocate"));
            };
            file.punched(range, &attributes);
            this.learn_changed(known, attributes);
            drop(hold);
            Ok(())
        })
        .await
    }

    /// lseek(2) with SEEK_DATA or SEEK_HOLE: the first offset at or after `offset` that is data, or in a hole. The end of the file
    /// counts as a hole.
    pub async fn seek(&self, handle: Handle, offset: u64, target: SeekTarget) -> Result<u64, FsError> {
        let file = Arc::clone(&self.0.handles.file(handle)?.file);
        self.freshen(&file).await?;
        let size = file.local_size();
        if offset >= size {
            return Err(FsError::NoDataThere);
        }
        let (mut position, mut step) = (offset, SEEK_STEP_BYTES);
        while position < size {
            let end = position.saturating_add(step).min(size);
            let data = file.extents(position..end).await?;
            match target {
                SeekTarget::Data => {
                    if let Some(first) = data.first() {
                        return Ok(first.start.max(position));
                    }
                    step = step.saturating_mul(2);
                    position = end;
                }
                SeekTarget::Hole => {
                    let filled = data.iter().take_while(|range| range.start <= position).last().map_or(position, |range| range.end);
                    if filled < end {
                        return Ok(filled.max(position));
                    }
                    position = end;
                }
            }
        }
        match target {
            SeekTarget::Data => Err(FsError::NoDataThere),
            SeekTarget::Hole => Ok(size),
        }
    }

    /// copy_file_range(2): shares the content instead of copying it; `NotSupported` if the files keep their content in different pools. Answers with the number of bytes, fewer than `len` only if
    /// the source ends before.
    pub async fn copy_range(&self, from: Handle, from_offset: u64, to: Handle, to_offset: u64, len: u64) -> Result<u64, FsError> {
        let source = Arc::clone(&self.readable(from)?.file);
        let target = Arc::clone(&self.writable(to)?.file);
        self.freshen(&source).await?;
        let bytes = len.min(source.local_size().saturating_sub(from_offset));
        if bytes == 0 {
            return Ok(0);
        }
        let (source_range, target_range) = (range_of(from_offset, bytes)?, range_of(to_offset, bytes)?);
        let overlaps = source_range.start < target_range.end && target_range.start < source_range.end;
        if source.ino() == target.ino() && overlaps {
            return Err(FsError::Invalid);
        }
        source.flush().await?;
        target.flush().await?;
        let (hold, this) = (target.hold().await, self.clone());
        self.to_its_end("copy_file_range", async move {
            let changing = this.0.cache.changing(target.ino());
            let mutation = Mutation::CopyRange { from: source.ino(), from_offset, to: target.ino(), to_offset, bytes };
            let Changed { reply: MutationReply::Copied { bytes, to }, known } = this.change(changing, mutation, "copy_file_range").await?
            else {
                return Err(unexpected("copy_file_range"));
            };
            if !is_planted(Bug::StaleExtents) {
                target.forget_extents();
            }
            target.refreshed(&this.learn_changed(known, to));
            drop(hold);
            Ok(bytes)
        })
        .await
    }
}

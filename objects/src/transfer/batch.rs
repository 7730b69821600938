//! Small files, many at once: the files of a batch share chunks and commits on their way up, and their requests are all under way together.
//!
//! A file goes up without a name, is flushed, read back as the master says it is, and only then named. So whatever ends the process leaves nothing
//! behind, and no request is spent on a temporary name.

use super::SMALL_BYTES_MAX;
use super::engine::Engine;
use super::part::passing_name;
use super::plan::Job;
use super::preserve::{Xattrs, set_remote_xattrs, xattrs_of};
use super::publish::Seat;
use super::spot::Spot;
use super::traits::Traits;
use super::watch::Deed;
use crate::failure::{At, Failure, Reason};
use crate::local;
use bytes::Bytes;
use cairn_client::{AllocateMode, Handle, OpenFlags};
use cairn_common::attributes::{AttributeChange, FileKind, NewInode, TimeChange};
use cairn_common::buffer::Buffer;
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use cairn_common::time::Timestamp;
use futures_util::future::{join_all, join4};
use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A batch has no more files, so that a stop does not wait long for it.
const FILES_MAX: usize = 256;
/// ... and as much content as one chunk holds, about.
const BYTES_MAX: u64 = 3 << 20;

/// What is done together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    uploads: Vec<Job>,
    downloads: Vec<Job>,
    /// Copies within CairnFS, symlinks, and what is refused.
    others: Vec<Job>,
    updates: Vec<Job>,
    bytes: u64,
}

impl Batch {
    /// Takes a file, unless it is too long: then it is given back.
    pub fn take(&mut self, job: Job) -> Option<Job> {
        let is_regular = job.traits.kind == FileKind::Regular;
        if matches!(job.source, Spot::Stream) || is_regular && job.traits.size > SMALL_BYTES_MAX {
            return Some(job);
        }
        self.bytes += job.traits.size;
        match (&job.source, &job.target) {
            (Spot::Local(_), Spot::Remote(_)) if is_regular => self.uploads.push(job),
            (Spot::Remote(_), Spot::Local(_)) if is_regular => self.downloads.push(job),
            _ => self.others.push(job),
        }
        None
    }

    pub fn update(&mut self, job: Job) {
        self.updates.push(job);
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.uploads.len() + self.downloads.len() + self.others.len() + self.updates.len()
    }

    pub fn is_full(&self) -> bool {
        self.len() >= FILES_MAX || self.bytes >= BYTES_MAX
    }
}

/// The content of a small file, read at once.
struct Content {
    bytes: Buffer,
    /// What of it is no hole.
    data: Vec<Range<u64>>,
    traits: Traits,
}

fn read_small(path: &Path) -> Result<Content, Failure> {
    let source = local::Source::open(path)?;
    if source.traits.size > SMALL_BYTES_MAX {
        return Err(Failure::new(path.display(), Reason::Changed));
    }
    let (bytes, data) = (source.read(0, source.traits.size as usize)?, source.data(0..source.traits.size)?);
    source.check_unchanged()?;
    Ok(Content { bytes, data, traits: source.traits })
}

/// A file without a name, with its content written and not flushed.
struct Draft<'a> {
    engine: &'a Engine,
    seat: Seat,
    ino: Ino,
    handle: Handle,
    bytes: Buffer,
    data: Vec<Range<u64>>,
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        // It is there: it was opened by us.
        let _ = self.engine.store.fs.release(self.handle);
    }
}

impl Engine {
    pub(super) async fn do_batch(&self, batch: Batch) {
        let others = join_all(batch.others.into_iter().map(|job| self.copy_other(job)));
        let updates = join_all(batch.updates.into_iter().map(|job| self.update(job)));
        join4(self.upload_batch(batch.uploads), self.download_batch(batch.downloads), others, updates).await;
    }

    // ---- up

    async fn upload_batch(&self, jobs: Vec<Job>) {
        if jobs.is_empty() {
            return;
        }
        let paths: Vec<PathBuf> = jobs.iter().map(|job| local_path(&job.source)).collect();
        let contents = self.store.runtime.blocking(move || paths.iter().map(|path| read_small(path)).collect::<Vec<_>>()).await;
        let drafts = join_all(jobs.iter().zip(contents).map(|(job, content)| self.draft(job, content))).await;
        // All flushes begin before the packer sees any: they share one chunk and one commit.
        let published = join_all(drafts.into_iter().map(|draft| self.publish_draft(draft))).await;
        for (job, outcome) in jobs.into_iter().zip(published) {
            self.copied(job, outcome);
        }
    }

    async fn draft(&self, job: &Job, content: Result<Content, Failure>) -> Result<Draft<'_>, Failure> {
        let Content { bytes, data, traits } = content?;
        let (store, path) = (&self.store, &job.target);
        self.stop.check(path)?;
        self.pace.take(traits.size).await;
        let seat = self.seat(path).await?;
        let mode = store.caller.mode_of_copy(traits.mode, traits.uid, self.options.preserve);
        let inode = store.caller.new_inode(FileKind::Regular, mode);
        let (_, opened) = store.fs.create_unnamed(seat.directory.ino, inode, OpenFlags::READ_WRITE).await.at(path)?;
        let (ino, handle) = (opened.attributes.ino, opened.handle);
        let draft = Draft { engine: self, seat, ino, handle, bytes, data };
        if self.options.preserve {
            let xattrs = xattrs_of(store, &job.source, &traits).await?;
            set_remote_xattrs(store, path, ino, &xattrs).await?;
        }
        draft.write().await.at(path)?;
        if self.options.preserve {
            draft.set_time(traits.mtime).await?;
        }
        Ok(draft)
    }

    async fn publish_draft(&self, draft: Result<Draft<'_>, Failure>) -> Result<Deed, Failure> {
        let draft = draft?;
        draft.verify().await?;
        self.stop.check(&draft.seat.path)?;
        let is_named = draft.seat.name_unnamed(&self.store, draft.ino).await?;
        self.watch.moved(None, draft.bytes.len() as u64);
        Ok(if is_named { Deed::Copied } else { Deed::Kept })
    }

    // ---- down

    async fn download_batch(&self, jobs: Vec<Job>) {
        if jobs.is_empty() {
            return;
        }
        let fetched = join_all(jobs.iter().map(|job| self.fetch_small(job))).await;
        let (replace, sync) = (self.options.replace, self.options.moves);
        let write = move || fetched.into_iter().map(|fetched| fetched.and_then(|arrived| arrived.write(replace, sync))).collect::<Vec<_>>();
        let written = self.store.runtime.blocking(write).await;
        for (job, outcome) in jobs.into_iter().zip(written) {
            self.watch.moved(None, job.traits.size);
            self.copied(job, outcome);
        }
    }

    async fn fetch_small(&self, job: &Job) -> Result<Arrived, Failure> {
        let Spot::Remote(path) = &job.source else { return Err(Failure::said(&job.source, "it is not in CairnFS")) };
        self.stop.check(path)?;
        self.pace.take(job.traits.size).await;
        let target = local_path(&job.target);
        self.make_local_directory(target.parent().unwrap_or(Path::new(""))).await?;
        let object = self.store.open_inode(path, Ino(job.traits.identity.1)).await?;
        let traits = Traits::from(&object.attributes);
        if traits.size > SMALL_BYTES_MAX {
            return Err(Failure::new(path, Reason::Changed));
        }
        let bytes = object.read(0, traits.size).await?;
        let data = object.data().await?;
        let xattrs = if self.options.preserve { xattrs_of(&self.store, &job.source, &traits).await? } else { Vec::new() };
        let mode = self.store.caller.mode_of_copy(traits.mode, traits.uid, self.options.preserve);
        let mtime = self.options.preserve.then_some(traits.mtime);
        let part = passing_name(target.file_name().unwrap_or_default().as_bytes(), self.store.runtime.random_u64());
        Ok(Arrived { part: target.with_file_name(OsStr::from_bytes(&part)), target, bytes, data, traits, mode, mtime, xattrs })
    }

    // ---- the rest

    async fn copy_other(&self, job: Job) {
        let outcome = match job.traits.kind {
            FileKind::Regular => self.copy_across(&job).await,
            FileKind::Symlink => self.copy_symlink(&job).await,
            _ => Err(Failure::said(&job.source, "it is a device, socket or pipe, which is not copied")),
        };
        self.copied(job, outcome);
    }

    async fn copy_symlink(&self, job: &Job) -> Result<Deed, Failure> {
        let target = match &job.source {
            Spot::Remote(path) => self.store.fs.read_link(Ino(job.traits.identity.1)).await.at(path)?,
            source => {
                let path = local_path(source);
                self.store.runtime.blocking(move || local::symlink_target(&path)).await.at(source)?
            }
        };
        let is_made = match &job.target {
            Spot::Remote(_) => self.make_remote_symlink(job, target).await?,
            spot => {
                let (path, replace) = (local_path(spot), self.options.replace);
                self.make_local_directory(path.parent().unwrap_or(Path::new(""))).await?;
                self.store.runtime.blocking(move || local::symlink(&target, &path, replace)).await.at(spot)?
            }
        };
        if is_made && self.options.preserve {
            super::preserve::set_traits(&self.store, &job.source, &job.traits, &job.target).await?;
        }
        Ok(if is_made { Deed::Copied } else { Deed::Kept })
    }

    async fn make_remote_symlink(&self, job: &Job, target: Vec<u8>) -> Result<bool, Failure> {
        let seat = self.seat(&job.target).await?;
        let inode = NewInode { symlink_target: target, ..self.store.caller.new_inode(FileKind::Symlink, 0o777) };
        match self.store.fs.create(seat.directory.ino, &seat.name, inode.clone(), false).await {
            Ok(_) => return Ok(true),
            Err(FsError::Exists) if !seat.replace => return Ok(false),
            Err(FsError::Exists) => {}
            Err(error) => return Err(Failure::new(&job.target, error)),
        }
        let part = passing_name(&seat.name, self.store.runtime.random_u64());
        self.store.fs.create(seat.directory.ino, &part, inode, false).await.at(&job.target)?;
        seat.name_part(&self.store, &part).await
    }
}

impl Draft<'_> {
    /// All but the holes.
    async fn write(&self) -> Result<(), FsError> {
        let (fs, len) = (&self.engine.store.fs, self.bytes.len() as u64);
        for range in &self.data {
            fs.write(self.handle, range.start, &self.bytes[range.start as usize..range.end as usize]).await?;
        }
        match self.data.last().map_or(0, |last| last.end) < len {
            true => fs.allocate(self.handle, AllocateMode::Extend, 0, len).await,
            false => Ok(()),
        }
    }

    /// The time goes with the commit of the content; without content there is none.
    async fn set_time(&self, mtime: Timestamp) -> Result<(), Failure> {
        let fs = &self.engine.store.fs;
        if !self.data.is_empty() {
            return fs.stamp(self.handle, mtime).at(&self.seat.path);
        }
        let change = AttributeChange { mtime: Some(TimeChange::At(mtime)), ..AttributeChange::default() };
        fs.set_attributes(self.ino, change, None).await.map(|_| ()).at(&self.seat.path)
    }

    /// Flushes, and reads what the master now says that the file is made of.
    async fn verify(&self) -> Result<(), Failure> {
        let (fs, path) = (&self.engine.store.fs, &self.seat.path);
        if self.bytes.is_empty() {
            return Ok(());
        }
        fs.flush(self.handle).await.at(path)?;
        fs.forget_content(self.handle).at(path)?;
        // Every block is checked against the hash that the master names.
        let there: Bytes = fs.read(self.handle, 0, self.bytes.len()).await.at(path)?;
        if there[..] == self.bytes[..] {
            Ok(())
        } else {
            Err(Failure::new(path, Reason::Mismatch("the cluster gives back another content than was sent".to_owned())))
        }
    }
}

/// A small file that has arrived and is to be written here.
struct Arrived {
    part: PathBuf,
    target: PathBuf,
    bytes: Bytes,
    /// What of it is no hole.
    data: Vec<Range<u64>>,
    traits: Traits,
    mode: u16,
    mtime: Option<Timestamp>,
    xattrs: Xattrs,
}

impl Arrived {
    fn write(self, replace: bool, sync: bool) -> Result<Deed, Failure> {
        let unfinished = local::Unfinished::open(self.part, self.bytes.len() as u64, false)?;
        for range in &self.data {
            unfinished.write(range.start, &self.bytes[range.start as usize..range.end as usize])?;
        }
        finish_local(
            &unfinished,
            &self.target,
            &Finish { traits: self.traits, mode: self.mode, mtime: self.mtime, xattrs: self.xattrs, replace, sync },
        )
    }
}

/// What a local file gets besides its content.
pub(super) struct Finish {
    pub traits: Traits,
    pub mode: u16,
    pub mtime: Option<Timestamp>,
    pub xattrs: Xattrs,
    pub replace: bool,
    /// Its source will be removed.
    pub sync: bool,
}

/// The last steps of a local copy.
pub(super) fn finish_local(unfinished: &local::Unfinished, target: &Path, finish: &Finish) -> Result<Deed, Failure> {
    let path = unfinished.path();
    local::write_xattrs(path, &finish.xattrs)?;
    local::set_mode(path, &finish.traits, finish.mode).at(target.display())?;
    if let Some(mtime) = finish.mtime {
        local::set_times(path, mtime).at(target.display())?;
    }
    if finish.sync {
        unfinished.sync()?;
    }
    let is_named = unfinished.finish(target, finish.replace)?;
    if finish.sync {
        local::sync_directory(target).at(target.display())?;
    }
    Ok(if is_named { Deed::Copied } else { Deed::Kept })
}

pub(super) fn local_path(spot: &Spot) -> PathBuf {
    match spot {
        Spot::Local(path) => path.clone(),
        Spot::Remote(_) | Spot::Stream => PathBuf::new(),
    }
}

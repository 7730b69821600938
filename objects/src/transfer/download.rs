//! Long files on their way down: ranges side by side into a file of another name. Holes stay holes.

use super::batch::{Finish, finish_local, local_path};
use super::content_map::ContentMap;
use super::engine::Engine;
use super::part::resumable_name;
use super::plan::Job;
use super::preserve::xattrs_of;
use super::spot::Spot;
use super::traits::Traits;
use super::watch::{Deed, Ticket};
use crate::content::OpenObject;
use crate::failure::{Failure, Reason};
use crate::local::Unfinished;
use cairn_common::ids::{ChunkId, Ino};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The kernel lets one write at a time change a file; the others would spin on a processor that is needed elsewhere.
const WRITES_AT_ONCE: usize = 1;

/// A file that is being fetched.
struct Download<'a> {
    engine: &'a Engine,
    object: OpenObject,
    unfinished: Arc<Unfinished>,
    /// For who writes to it.
    writing: Semaphore,
    /// Of a file that may have holes, or of which an earlier try may have brought something; else it does not matter where its chunks are.
    map: Option<ContentMap>,
    ticket: Ticket,
}

impl Engine {
    pub(super) async fn download(&self, job: &Job, ticket: Ticket) -> Result<Deed, Failure> {
        let Spot::Remote(path) = &job.source else { return Err(Failure::said(&job.source, "it is not in CairnFS")) };
        let target = local_path(&job.target);
        self.make_local_directory(target.parent().unwrap_or(Path::new(""))).await?;
        if !self.options.replace && target.symlink_metadata().is_ok() {
            return Ok(Deed::Kept);
        }
        let ino = Ino(job.traits.identity.1);
        let object = self.store.open_inode(path, ino).await?;
        let traits = Traits::from(&object.attributes);
        let part = target.with_file_name(OsStr::from_bytes(&resumable_name(target.file_name().unwrap_or_default().as_bytes(), &traits)));
        let size = traits.size;
        let may_have_holes = object.attributes.allocated < size;
        let open = move || {
            let unfinished = Unfinished::open(part, size, true)?;
            if !may_have_holes && size > 0 {
                unfinished.reserve(0..size)?;
            }
            Ok(unfinished)
        };
        let unfinished = Arc::new(self.store.runtime.blocking(open).await?);
        let map = match unfinished.is_resumed || may_have_holes {
            true => Some(ContentMap::fetch(&self.store, path, ino, size).await?),
            false => None,
        };
        let writing = Semaphore::new(WRITES_AT_ONCE);
        let download = Download { engine: self, object, unfinished: Arc::clone(&unfinished), writing, map, ticket };
        match download.fill_and_name(job, traits, &target).await {
            Err(failure) if failure.reason.may_pass() => {
                unfinished.keep();
                let sentence = format!("{}; what has arrived is kept, and the same command goes on from there", failure.reason);
                Err(Failure::said(&job.target, sentence))
            }
            outcome => outcome,
        }
    }
}

impl Download<'_> {
    async fn fill_and_name(&self, job: &Job, traits: Traits, target: &Path) -> Result<Deed, Failure> {
        let (engine, store) = (self.engine, &self.engine.store);
        let step = store.fs.chunk_bytes_max(self.object.attributes.ino) as u64;
        let size = traits.size;
        let ranges = (0..size.div_ceil(step)).map(|part| part * step..size.min((part + 1) * step));
        let fetches = stream::iter(ranges).map(|range| self.fetch_window(range)).buffer_unordered(engine.options.jobs);
        fetches.try_collect::<()>().await?;
        // Ranges that were read at different times belong together only if nobody wrote meanwhile.
        let now = Traits::from(&store.open_inode(&self.object.path, self.object.attributes.ino).await?.attributes);
        if (now.size, now.mtime) != (traits.size, traits.mtime) {
            return Err(Failure::new(&self.object.path, Reason::Changed));
        }
        let preserve = engine.options.preserve;
        let finish = Finish {
            xattrs: if preserve { xattrs_of(store, &job.source, &traits).await? } else { Vec::new() },
            mode: store.caller.mode_of_copy(traits.mode, traits.uid, preserve),
            mtime: preserve.then_some(traits.mtime),
            traits,
            replace: engine.options.replace,
            sync: engine.options.moves,
        };
        engine.stop.check(&self.object.path)?;
        let (unfinished, target) = (Arc::clone(&self.unfinished), target.to_owned());
        store.runtime.blocking(move || finish_local(&unfinished, &target, &finish)).await
    }

    /// The parts of a window that are no holes.
    async fn fetch_window(&self, window: Range<u64>) -> Result<(), Failure> {
        let parts = self.map.as_ref().map_or_else(|| vec![window.clone()], |map| map.data(&window));
        let mut end = window.start;
        for part in parts {
            self.skip(end..part.start).await?;
            end = part.end;
            self.fetch(part).await?;
        }
        self.skip(end..window.end).await?;
        self.engine.watch.moved(Some(self.ticket), window.end - window.start);
        Ok(())
    }

    /// Leaves a hole; an earlier try may have written there.
    async fn skip(&self, hole: Range<u64>) -> Result<(), Failure> {
        if hole.is_empty() || !self.unfinished.is_resumed {
            return Ok(());
        }
        let unfinished = Arc::clone(&self.unfinished);
        self.engine.store.runtime.blocking(move || unfinished.clear(hole)).await
    }

    async fn fetch(&self, range: Range<u64>) -> Result<(), Failure> {
        let engine = self.engine;
        engine.stop.check(&self.object.path)?;
        let len = range.end - range.start;
        if self.is_there(&range).await? {
            engine.sums.count(|counts| counts.resumed_bytes += len);
        } else {
            engine.pace.take(len).await;
            let bytes = self.object.read(range.start, len).await?;
            if bytes.len() as u64 != len {
                return Err(Failure::new(&self.object.path, Reason::Changed));
            }
            // The semaphore is never closed.
            let _turn = self.writing.acquire().await.ok();
            let unfinished = Arc::clone(&self.unfinished);
            engine.store.runtime.blocking(move || unfinished.write(range.start, &bytes)).await?;
        }
        Ok(())
    }

    /// Whether an earlier try has brought a range: by its hash.
    async fn is_there(&self, range: &Range<u64>) -> Result<bool, Failure> {
        let chunk = self.map.as_ref().filter(|_| self.unfinished.is_resumed).and_then(|map| map.whole_chunk(range));
        let Some(chunk) = chunk else { return Ok(false) };
        let (unfinished, range) = (Arc::clone(&self.unfinished), range.clone());
        let read =
            move || unfinished.read(range.start, (range.end - range.start) as usize).map(|bytes| ChunkId(*blake3::hash(&bytes).as_bytes()));
        Ok(self.engine.store.runtime.blocking(read).await? == chunk)
    }
}

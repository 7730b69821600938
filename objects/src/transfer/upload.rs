//! Long files on their way up: read and hashed ahead, written in order, so that each part becomes a chunk of its own whose id is the hash that
//! was read; put by the client many at a time. Holes stay holes.

use super::content_map::{ContentMap, Expected};
use super::engine::Engine;
use super::part::resumable_name;
use super::plan::Job;
use super::preserve::{set_remote_xattrs, xattrs_of};
use super::publish::Seat;
use super::watch::{Deed, Ticket};
use crate::failure::{At, Failure, Reason};
use crate::local::Source;
use cairn_client::{AllocateMode, Handle, HashedChunk, OpenFlags};
use cairn_common::attributes::{AttributeChange, Attributes, FileKind, TimeChange};
use cairn_common::ids::{ChunkId, Ino};
use cairn_common::scheme::Scheme;
use futures_util::stream::{self, StreamExt};
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

/// Windows read and hashed ahead of the one that is being written.
const WINDOWS_AHEAD: usize = 3;

/// A part of a file, hashed.
struct Part {
    range: Range<u64>,
    chunk: HashedChunk,
}

/// A file in CairnFS that is being filled.
struct Upload<'a> {
    engine: &'a Engine,
    job: &'a Job,
    seat: Seat,
    handle: Handle,
    attributes: Attributes,
    ticket: Ticket,
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        // It is there: it was opened by us.
        let _ = self.engine.store.fs.release(self.handle);
    }
}

impl Engine {
    pub(super) async fn upload(&self, job: &Job, ticket: Ticket) -> Result<Deed, Failure> {
        let path = super::batch::local_path(&job.source);
        let source = Arc::new(self.store.runtime.blocking(move || Source::open(&path)).await?);
        let seat = self.seat(&job.target).await?;
        if !seat.is_open(&self.store).await? {
            return Ok(Deed::Kept);
        }
        let part = resumable_name(&seat.name, &source.traits);
        let upload = self.open_part(job, seat, &part, ticket).await?;
        let outcome = upload.fill_and_name(&source, &part).await;
        match outcome {
            Err(failure) if failure.reason.may_pass() => {
                // What is with the cluster now need not be sent again.
                let _ = self.store.fs.flush(upload.handle).await;
                let sentence = format!("{}; what has arrived is kept, and the same command goes on from there", failure.reason);
                Err(Failure::said(&job.target, sentence))
            }
            Err(failure) => {
                // It may be gone already; and nothing depends on it.
                let _ = self.store.fs.unlink(upload.seat.directory.ino, &part).await;
                Err(failure)
            }
            Ok(is_named) => Ok(if is_named { Deed::Copied } else { Deed::Kept }),
        }
    }

    /// Opens the temporary file: that of an earlier try, if there is one.
    async fn open_part<'a>(&'a self, job: &'a Job, seat: Seat, part: &[u8], ticket: Ticket) -> Result<Upload<'a>, Failure> {
        let inode = self.store.caller.new_inode(FileKind::Regular, 0o600);
        let made = self.store.fs.create_open(seat.directory.ino, part, inode, true, OpenFlags::READ_WRITE).await;
        let (attributes, opened) = made.at(&job.target)?;
        let upload = Upload { engine: self, job, seat, handle: opened.handle, attributes, ticket };
        self.store.check_owner(&job.target, &upload.attributes)?;
        Ok(upload)
    }

    /// From standard input: of unknown length, and it can't be read again.
    pub(super) async fn upload_stream(&self, job: &Job, ticket: Ticket) -> Result<Deed, Failure> {
        let seat = self.seat(&job.target).await?;
        if !seat.is_open(&self.store).await? {
            return Ok(Deed::Kept);
        }
        let mode = 0o666 & !self.store.caller.umask;
        let inode = self.store.caller.new_inode(FileKind::Regular, mode);
        let made = self.store.fs.create_unnamed(seat.directory.ino, inode, OpenFlags::READ_WRITE).await;
        let (attributes, opened) = made.at(&job.target)?;
        let upload = Upload { engine: self, job, seat, handle: opened.handle, attributes, ticket };
        let expected = upload.fill_from_stream().await?;
        upload.verify(&expected, expected.end()).await?;
        let is_named = upload.seat.name_unnamed(&self.store, upload.ino()).await?;
        Ok(if is_named { Deed::Copied } else { Deed::Kept })
    }
}

impl Upload<'_> {
    fn ino(&self) -> Ino {
        self.attributes.ino
    }

    /// Whether it has its name in the end.
    async fn fill_and_name(&self, source: &Arc<Source>, part: &[u8]) -> Result<bool, Failure> {
        let (engine, store) = (self.engine, &self.engine.store);
        let expected = self.fill(source).await?;
        let unchanged = Arc::clone(source);
        store.runtime.blocking(move || unchanged.check_unchanged()).await?;
        self.verify(&expected, source.traits.size).await?;
        let preserve = engine.options.preserve;
        if preserve {
            let xattrs = xattrs_of(store, &self.job.source, &source.traits).await?;
            set_remote_xattrs(store, &self.job.target, self.ino(), &xattrs).await?;
        }
        let change = AttributeChange {
            mode: Some(store.caller.mode_of_copy(source.traits.mode, source.traits.uid, preserve)),
            mtime: preserve.then_some(TimeChange::At(source.traits.mtime)),
            ..AttributeChange::default()
        };
        store.fs.set_attributes(self.ino(), change, None).await.at(&self.job.target)?;
        engine.stop.check(&self.job.target)?;
        self.seat.name_part(store, part).await
    }

    /// Sends what is not there yet.
    async fn fill(&self, source: &Arc<Source>) -> Result<Expected, Failure> {
        let (engine, store) = (self.engine, &self.engine.store);
        let size = source.traits.size;
        let known = match self.attributes.size {
            0 => ContentMap::default(),
            _ => ContentMap::fetch(store, &self.seat.path, self.ino(), size).await?,
        };
        let step = store.fs.chunk_bytes_max(self.ino()) as u64;
        let windows = (0..size.div_ceil(step)).map(|part| part * step..size.min((part + 1) * step));
        let mut windows = stream::iter(windows).map(|window| self.read_window(source, window)).buffered(WINDOWS_AHEAD);
        let mut expected = Expected::default();
        while let Some(window) = windows.next().await {
            let (window, parts) = window?;
            for Part { range, chunk } in parts {
                engine.stop.check(&self.job.target)?;
                self.skip(&known, expected.end()..range.start).await?;
                let len = range.end - range.start;
                expected.push(range.clone(), chunk.id);
                if known.whole_chunk(&range) == Some(chunk.id) {
                    engine.sums.count(|counts| counts.resumed_bytes += len);
                } else {
                    engine.pace.take(len).await;
                    store.fs.write_chunk(self.handle, range.start, chunk).await.at(&self.job.target)?;
                }
            }
            engine.watch.moved(Some(self.ticket), window.end - window.start);
        }
        if expected.end() < size {
            self.skip(&known, expected.end()..size).await?;
            store.fs.allocate(self.handle, AllocateMode::Extend, 0, size).await.at(&self.job.target)?;
        }
        Ok(expected)
    }

    /// Leaves a hole; an earlier try with another source may have written there.
    async fn skip(&self, known: &ContentMap, hole: Range<u64>) -> Result<(), Failure> {
        if known.data(&hole).is_empty() {
            return Ok(());
        }
        let len = hole.end - hole.start;
        self.engine.store.fs.allocate(self.handle, AllocateMode::PunchHole, hole.start, len).await.at(&self.job.target)
    }

    /// The parts of a window that are no holes.
    async fn read_window(&self, source: &Arc<Source>, window: Range<u64>) -> Result<(Range<u64>, Vec<Part>), Failure> {
        let source = Arc::clone(source);
        // It has been opened, so the map has come; copies are hashed as a whole, which serves for any scheme, if at some cost.
        let scheme = self.engine.store.fs.scheme(self.ino()).unwrap_or(Scheme::copies(1));
        let read = move || {
            let part = |range: Range<u64>| {
                let bytes = source.read(range.start, (range.end - range.start) as usize)?;
                Ok(Part { range, chunk: HashedChunk::new(bytes.freeze(), scheme) })
            };
            let parts = source.data(window.clone())?.into_iter().map(part).collect::<Result<_, Failure>>()?;
            Ok((window, parts))
        };
        self.engine.store.runtime.blocking(read).await
    }

    async fn fill_from_stream(&self) -> Result<Expected, Failure> {
        let (engine, store) = (self.engine, &self.engine.store);
        let step = store.fs.chunk_bytes_max(self.ino());
        let mut expected = Expected::default();
        let mut position = 0;
        loop {
            engine.stop.check(&self.job.target)?;
            let read = move || {
                let mut bytes = Vec::with_capacity(step);
                std::io::stdin().lock().take(step as u64).read_to_end(&mut bytes).map(|_| bytes)
            };
            let bytes = tokio::select! {
                biased;
                bytes = store.runtime.blocking(read) => bytes.at("standard input")?,
                () = engine.stop.wait() => return Err(Failure::new(&self.job.target, Reason::Interrupted)),
            };
            if bytes.is_empty() {
                return Ok(expected);
            }
            let len = bytes.len() as u64;
            expected.push(position..position + len, ChunkId(*blake3::hash(&bytes).as_bytes()));
            engine.pace.take(len).await;
            self.write(position, bytes).await?;
            engine.watch.moved(Some(self.ticket), len);
            engine.sums.count(|counts| counts.bytes += len);
            position += len;
        }
    }

    /// Copies bytes into the write buffer; not on the thread that talks to the cluster, unless there is no room.
    async fn write(&self, offset: u64, bytes: impl AsRef<[u8]> + Send + 'static) -> Result<(), Failure> {
        let (fs, handle) = (self.engine.store.fs.clone(), self.handle);
        let copy = move || (fs.try_write(handle, offset, bytes.as_ref()), bytes);
        let (written, bytes) = self.engine.store.runtime.blocking(copy).await;
        match written {
            Some(written) => written,
            None => self.engine.store.fs.write(self.handle, offset, bytes.as_ref()).await,
        }
        .map(|_| ())
        .at(&self.job.target)
    }

    async fn verify(&self, expected: &Expected, size: u64) -> Result<(), Failure> {
        let store = &self.engine.store;
        store.fs.flush(self.handle).await.at(&self.job.target)?;
        expected.verify(store, &self.seat.path, self.ino(), self.handle, size).await
    }
}

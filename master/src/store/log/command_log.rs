//! Appending to the log, and making it durable in the background.

use super::record::{RECORD_HEADER_BYTES, encode_header, record_bytes};
use super::recover::Recovered;
use super::segment::{SEGMENT_HEADER_BYTES, Segment, Spare, segment_path};
use crate::store::tables::{StoreError, disk_error};
use cairn_common::ids::LogIndex;
use cairn_common::limits::LOG_SYNC_INTERVAL;
use cairn_common::planted::{Bug, is_planted};
use cairn_runtime::Runtime;
use cairn_runtime::disk::DiskFile;
use futures_util::FutureExt;
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How long commands gather before a sync. Half of what is promised, for the sync takes time as well.
const SYNC_PAUSE: Duration = Duration::from_nanos(LOG_SYNC_INTERVAL.as_nanos() as u64 / 2);

/// The log of a running master. See the module above.
pub struct CommandLog {
    runtime: Runtime,
    directory: PathBuf,
    segment_bytes: u64,
    state: Mutex<State>,
    /// Something was appended.
    dirty: Notify,
    /// Somebody waits for a sync.
    urgent: Notify,
    progress: watch::Sender<Progress>,
}

/// How far the log is durable, and whether it ever will be further.
#[derive(Debug, Clone)]
struct Progress {
    durable: LogIndex,
    failed: Option<StoreError>,
}

struct State {
    segment: Segment,
    /// Where the next record goes.
    end: u64,
    /// First indices of the segments before.
    full: Vec<LogIndex>,
    spare: Option<Spare>,
    last: LogIndex,
    /// The largest index that somebody waits for.
    wanted: LogIndex,
    /// Full segments with records that are not durable yet.
    unsynced: Vec<Arc<dyn DiskFile>>,
    /// Whether a segment's name is not durable yet.
    unsynced_names: bool,
}

/// What one sync must do.
struct SyncWork {
    through: LogIndex,
    files: Vec<Arc<dyn DiskFile>>,
    names: bool,
    make_spare: bool,
}

impl CommandLog {
    /// Goes on with a recovered log, in a new segment. Blocks.
    pub fn open(runtime: Runtime, directory: PathBuf, segment_bytes: u64, recovered: Recovered) -> Result<Self, StoreError> {
        let first = recovered.last.next();
        let segment = Spare::create(&runtime, &directory, segment_bytes)
            .and_then(|spare| spare.into_segment(&*runtime.disk, &directory, first))
            .and_then(|segment| runtime.disk.sync_directory(&directory).map(|()| segment))
            .map_err(|error| disk_error("make a segment in", &directory, &error))?;
        let state = State {
            segment,
            end: SEGMENT_HEADER_BYTES as u64,
            // A segment without records may have had the name of the new one.
            full: recovered.segments.into_iter().filter(|other| *other != first).collect(),
            spare: None,
            last: recovered.last,
            wanted: LogIndex::ZERO,
            unsynced: Vec::new(),
            unsynced_names: false,
        };
        let (progress, _) = watch::channel(Progress { durable: recovered.last, failed: None });
        Ok(Self { runtime, directory, segment_bytes, state: Mutex::new(state), dirty: Notify::new(), urgent: Notify::new(), progress })
    }

    /// The last command that was appended.
    pub fn last(&self) -> LogIndex {
        self.state.lock().last
    }

    /// The last command that is on stable storage.
    pub fn durable(&self) -> LogIndex {
        self.progress.borrow().durable
    }

    /// Why the log takes nothing more, if so.
    pub fn failure(&self) -> Option<StoreError> {
        self.progress.borrow().failed.clone()
    }

    /// Appends a command: one write into the page cache. It survives the death of this process, and a power loss once `synced`.
    pub fn append(&self, payload: &[u8]) -> Result<LogIndex, StoreError> {
        let durable = {
            let progress = self.progress.borrow();
            progress.failed.clone().map_or(Ok(progress.durable), Err)?
        };
        let index = self.write(&mut self.state.lock(), durable, payload).inspect_err(|error| self.fail(error))?;
        self.dirty.notify_one();
        Ok(index)
    }

    fn write(&self, state: &mut State, durable: LogIndex, payload: &[u8]) -> Result<LogIndex, StoreError> {
        let bytes = record_bytes(payload.len()) as u64;
        if state.end + bytes > self.segment_bytes && state.end > SEGMENT_HEADER_BYTES as u64 {
            self.roll(state)?;
        }
        let index = state.last.next();
        let header: [u8; RECORD_HEADER_BYTES] = encode_header(&state.segment.key, index, durable, payload);
        let written = state.segment.file.write_at(&[&header, payload], state.end);
        written.map_err(|error| disk_error("write", &segment_path(&self.directory, state.segment.first), &error))?;
        state.end += bytes;
        state.last = index;
        Ok(index)
    }

    /// Turns to the next segment. It is normally there already; after a burst it is made on the spot.
    fn roll(&self, state: &mut State) -> Result<(), StoreError> {
        let first = state.last.next();
        let spare = state.spare.take().map_or_else(|| Spare::create(&self.runtime, &self.directory, self.segment_bytes), Ok);
        let next = spare
            .and_then(|spare| spare.into_segment(&*self.runtime.disk, &self.directory, first))
            .map_err(|error| disk_error("make a segment in", &self.directory, &error))?;
        let full = std::mem::replace(&mut state.segment, next);
        state.unsynced.push(full.file);
        state.full.push(full.first);
        state.unsynced_names = true;
        state.end = SEGMENT_HEADER_BYTES as u64;
        Ok(())
    }

    /// Waits until a command is on stable storage.
    pub async fn synced(&self, index: LogIndex) -> Result<(), StoreError> {
        if is_planted(Bug::AnsweredBeforeLogSync) {
            return Ok(());
        }
        let mut progress = self.progress.subscribe();
        {
            let mut state = self.state.lock();
            debug_assert!(index <= state.last);
            state.wanted = state.wanted.max(index);
        }
        if self.durable() < index {
            self.urgent.notify_one();
        }
        let reached = progress.wait_for(|progress| progress.durable >= index || progress.failed.is_some()).await;
        match reached {
            Ok(progress) if progress.durable >= index => Ok(()),
            Ok(progress) => Err(progress.failed.clone().unwrap_or_else(closed)),
            Err(_) => Err(closed()),
        }
    }

    /// Waits until the log has failed.
    pub async fn failed(&self) -> StoreError {
        let mut progress = self.progress.subscribe();
        match progress.wait_for(|progress| progress.failed.is_some()).await {
            Ok(progress) => progress.failed.clone().unwrap_or_else(closed),
            Err(_) => closed(),
        }
    }

    /// Takes nothing more from here on.
    pub fn fail(&self, error: &StoreError) {
        self.progress.send_if_modified(|progress| {
            let is_first = progress.failed.is_none();
            if is_first {
                tracing::error!("the master takes nothing more: {error}");
                progress.failed = Some(error.clone());
            }
            is_first
        });
    }

    /// Syncs whenever there is something to sync, at the latest `LOG_SYNC_INTERVAL` after it was appended. Runs until the log fails.
    pub async fn run_syncing(&self) {
        while self.failure().is_none() {
            if self.last() == self.durable() {
                self.dirty.notified().await;
                continue;
            }
            if self.state.lock().wanted <= self.durable() {
                let wait = self.runtime.sleep(SYNC_PAUSE);
                tokio::select! {
                    biased;
                    () = self.urgent.notified() => {}
                    () = wait => {}
                }
            }
            if let Err(error) = self.sync_once().await {
                self.fail(&error);
            }
        }
    }

    async fn sync_once(&self) -> Result<(), StoreError> {
        // Whoever has rung is served by this sync; the ring must not cut the next pause short.
        let _ = self.urgent.notified().now_or_never();
        let work = self.next_sync();
        let (through, make_spare) = (work.through, work.make_spare);
        let (runtime, directory, segment_bytes) = (self.runtime.clone(), self.directory.clone(), self.segment_bytes);
        let done = self.runtime.blocking(move || work.perform(&runtime, &directory)).await;
        done.map_err(|error| disk_error("sync the log in", &self.directory, &error))?;
        self.progress.send_modify(|progress| progress.durable = progress.durable.max(through));
        if make_spare {
            let (runtime, directory) = (self.runtime.clone(), self.directory.clone());
            let spare = self.runtime.blocking(move || Spare::create(&runtime, &directory, segment_bytes)).await;
            let spare = spare.map_err(|error| disk_error("make a segment in", &self.directory, &error))?;
            self.state.lock().spare.get_or_insert(spare);
        }
        Ok(())
    }

    fn next_sync(&self) -> SyncWork {
        let mut state = self.state.lock();
        let mut files = std::mem::take(&mut state.unsynced);
        files.push(state.segment.file.clone());
        SyncWork {
            through: state.last,
            files,
            names: std::mem::take(&mut state.unsynced_names),
            make_spare: state.spare.is_none() && state.end > self.segment_bytes / 2,
        }
    }

    /// Removes the segments that hold nothing behind `applied`, which the tables have durably. Blocks.
    pub fn trim(&self, applied: LogIndex) -> Result<(), StoreError> {
        let obsolete: Vec<LogIndex> = {
            let mut state = self.state.lock();
            let current = state.segment.first;
            let begins_next: Vec<LogIndex> = state.full.iter().skip(1).copied().chain([current]).collect();
            let count = begins_next.iter().take_while(|next| **next <= applied.next()).count().min(state.full.len());
            state.full.drain(..count).collect()
        };
        for first in obsolete {
            let path = segment_path(&self.directory, first);
            self.runtime.disk.remove_file(&path).map_err(|error| disk_error("remove", &path, &error))?;
        }
        Ok(())
    }
}

impl SyncWork {
    fn perform(&self, runtime: &Runtime, directory: &Path) -> io::Result<()> {
        if is_planted(Bug::LogSyncSkipped) {
            return Ok(());
        }
        self.files.iter().try_for_each(|file| file.sync_data())?;
        if self.names { runtime.disk.sync_directory(directory) } else { Ok(()) }
    }
}

fn closed() -> StoreError {
    StoreError::Disk("the log was closed".to_owned())
}

//! The disk as the roles see it: handles that belong to one life of the node and die with it.

use super::Shared;
use super::names::FileId;
use super::state::{DiskState, Found, Kind, Verdict};
use crate::disk::{Disk, DiskEntry, DiskFile, DiskSpace, OpenMode};
use crate::sim::node::Life;
use crate::sim::trace::Event;
use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What an operation is about, for the trace.
#[derive(Clone, Copy)]
struct About {
    action: &'static str,
    object: u64,
    offset: u64,
    len: u64,
}

impl About {
    fn name(action: &'static str) -> Self {
        Self { action, object: 0, offset: 0, len: 0 }
    }
}

/// The disk of one life.
#[derive(Clone)]
pub(in crate::sim) struct LifeDisk {
    shared: Arc<Shared>,
    life: Arc<Life>,
}

impl LifeDisk {
    pub(super) fn new(shared: Arc<Shared>, life: Arc<Life>) -> Self {
        Self { shared, life }
    }

    /// Reads, unless this life is over or a fault is due.
    fn read<T>(&self, about: About, action: impl FnOnce(&mut DiskState) -> io::Result<T>) -> io::Result<T> {
        self.perform(Kind::Read, about, |state, verdict| match verdict {
            Verdict::Proceeds => action(state),
            Verdict::Fails | Verdict::PowerFails => Err(Errno::IO.into()),
        })
    }

    /// Changes something, unless this life is over or a fault is due. When the power fails, the change is under way and may survive.
    fn change<T>(&self, about: About, action: impl FnOnce(&mut DiskState) -> io::Result<T>) -> io::Result<T> {
        self.perform(Kind::Change, about, |state, verdict| match verdict {
            Verdict::Proceeds => action(state),
            Verdict::Fails => Err(Errno::IO.into()),
            Verdict::PowerFails => {
                action(state)?;
                Err(Errno::IO.into())
            }
        })
    }

    fn perform<T>(&self, kind: Kind, about: About, action: impl FnOnce(&mut DiskState, Verdict) -> io::Result<T>) -> io::Result<T> {
        if self.life.has_ended() {
            return Err(Errno::IO.into());
        }
        let node = self.shared.node;
        let mut state = self.shared.state.lock();
        let verdict = state.judge(kind);
        let About { action: name, object, offset, len } = about;
        self.shared.trace.add(match verdict {
            Verdict::Proceeds => Event::Disk { node, action: name, object, offset, len },
            Verdict::Fails | Verdict::PowerFails => Event::DiskFault { node, action: name, object },
        });
        let result = action(&mut state, verdict);
        if verdict != Verdict::PowerFails {
            return result;
        }
        if state.lose_power_as_planned() {
            self.shared.scheduler.fail_node(node);
        }
        // Whatever the action says: nobody hears of it any more.
        Err(Errno::IO.into())
    }
}

impl Disk for LifeDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let found = self.read(About::name("open"), |state| {
            let found = state.look_up(path, mode)?;
            if let Found::File(id) = found {
                state.open_handle(id);
            }
            Ok(found)
        })?;
        let id = match found {
            Found::File(id) => id,
            Found::Vacant(place) => self.change(About::name("create"), |state| {
                let id = state.create_file(place);
                state.open_handle(id);
                Ok(id)
            })?,
        };
        let is_writable = mode != OpenMode::Read;
        Ok(Arc::new(SimFile { disk: self.clone(), id, path: path.to_owned(), is_writable }))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<DiskEntry>> {
        self.read(About::name("list"), |state| state.list(directory))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.read(About::name("exists"), |state| state.exists(path))
    }

    fn create_directory_all(&self, path: &Path) -> io::Result<()> {
        self.change(About::name("create directory"), |state| state.create_directory_all(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(About::name("rename"), |state| state.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.change(About::name("remove"), |state| state.remove_file(path))
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.perform(Kind::Sync, About::name("sync directory"), |state, verdict| match verdict {
            Verdict::Proceeds => state.sync_directory(path),
            Verdict::Fails | Verdict::PowerFails => Err(Errno::IO.into()),
        })
    }

    fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        self.read(About::name("space"), |state| if state.exists(path)? { Ok(state.space()) } else { Err(Errno::NOENT.into()) })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = self.open(path, OpenMode::CreateOrOpen)?;
        let (id, token) = self.read(About::name("lock"), |state| {
            let id = state.existing_file(path)?;
            Ok((id, state.lock(id).ok_or(Errno::WOULDBLOCK)?))
        })?;
        Ok(Box::new(LockGuard { disk: self.clone(), id, token, _file: file }))
    }
}

/// Holds a lock until it is dropped or its life ends.
struct LockGuard {
    disk: LifeDisk,
    id: FileId,
    token: u64,
    _file: Arc<dyn DiskFile>,
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        self.disk.shared.state.lock().unlock(self.id, self.token);
    }
}

/// An open file.
struct SimFile {
    disk: LifeDisk,
    id: FileId,
    path: PathBuf,
    is_writable: bool,
}

impl SimFile {
    fn about(&self, action: &'static str, offset: u64, len: u64) -> About {
        About { action, object: self.id, offset, len }
    }

    fn require_writable(&self) -> io::Result<()> {
        if self.is_writable { Ok(()) } else { Err(Errno::BADF.into()) }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let about = self.about("read", offset, buffer.len() as u64);
        self.disk.read(about, |state| Ok(state.read(self.id, buffer, offset)))
    }

    fn read_at_if_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        let about = self.about("read if cached", offset, buffer.len() as u64);
        self.disk.read(about, |state| {
            let is_cached = state.draw_cached();
            Ok(is_cached.then(|| state.read(self.id, buffer, offset)))
        })
    }

    /// What is cached is drawn at each read.
    fn read_ahead(&self, _offset: u64, _len: u64) {}

    fn write_at(&self, pieces: &[&[u8]], offset: u64) -> io::Result<()> {
        self.require_writable()?;
        let bytes = pieces.concat();
        let about = self.about("write", offset, bytes.len() as u64);
        self.disk.perform(Kind::Change, about, |state, verdict| match verdict {
            Verdict::Proceeds | Verdict::PowerFails => {
                let offset = state.direct(self.id, &self.path, offset);
                state.write(self.id, bytes, offset)
            }
            Verdict::Fails if state.has_power => {
                state.write_beginning(self.id, bytes, offset);
                Err(Errno::IO.into())
            }
            Verdict::Fails => Err(Errno::IO.into()),
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.perform(Kind::Sync, self.about("sync", 0, 0), |state, verdict| match verdict {
            Verdict::Proceeds => {
                state.sync(self.id);
                Ok(())
            }
            Verdict::Fails => {
                state.fail_sync(self.id);
                Err(Errno::IO.into())
            }
            Verdict::PowerFails => Err(Errno::IO.into()),
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.read(self.about("length", 0, 0), |state| Ok(state.len(self.id)))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.require_writable()?;
        self.disk.change(self.about("set length", 0, len), |state| {
            state.set_len(self.id, len);
            Ok(())
        })
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.require_writable()?;
        self.disk.change(self.about("allocate", offset, len), |state| state.allocate(self.id, offset, len))
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        self.require_writable()?;
        self.disk.change(self.about("punch", offset, len), |state| {
            state.punch(self.id, offset, len);
            Ok(())
        })
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        self.disk.read(self.about("allocated", 0, 0), |state| Ok(state.allocated_bytes(self.id)))
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        // The end of a life has closed its handles; the file may be open again in the next one.
        if !self.disk.life.has_ended() {
            self.disk.shared.state.lock().close_handle(self.id);
        }
    }
}

impl std::fmt::Debug for SimFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on node {}", self.path.display(), self.disk.life.name)
    }
}

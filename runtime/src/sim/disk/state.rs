//! All of a disk behind its lock: names, files, space, locks, and the faults that are due.

use super::DiskFaults;
use super::file::{FileState, SECTOR_BYTES};
use super::image::PAGE_BYTES;
use super::names::{FileId, Inode, Names, Place};
use crate::disk::{DiskEntry, DiskSpace, OpenMode};
use crate::sim::random::Random;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

const CAPACITY_BYTES: u64 = 1 << 40;
/// Share of the reads that find their pages in memory.
const CACHED_READS: f64 = 0.8;

/// What an operation does to a disk, as faults see it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Change,
    Sync,
}

/// What becomes of an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Proceeds,
    /// EIO.
    Fails,
    /// The power goes while it is under way.
    PowerFails,
}

/// What lies at a path that is to be opened.
pub(super) enum Found {
    File(FileId),
    /// Nothing, and the mode allows to make it here.
    Vacant(Place),
}

/// A power loss to come.
struct PlannedLoss {
    at_operation: u64,
    takes_node: bool,
}

pub(super) struct DiskState {
    pub(super) faults: DiskFaults,
    pub(super) capacity: u64,
    pub(super) has_power: bool,
    names: Names,
    files: BTreeMap<FileId, FileState>,
    next_file: FileId,
    used: u64,
    random: Random,
    operations: u64,
    planned_loss: Option<PlannedLoss>,
    /// Extension of the files whose next write goes astray.
    misdirected: Option<String>,
    /// File to the token of its lock.
    locks: BTreeMap<FileId, u64>,
    next_token: u64,
}

impl DiskState {
    pub(super) fn new(seed: u64, node: &str) -> Self {
        Self {
            faults: DiskFaults::default(),
            capacity: CAPACITY_BYTES,
            has_power: true,
            names: Names::new(),
            files: BTreeMap::new(),
            next_file: 1,
            used: 0,
            random: Random::derive(seed, &format!("disk/{node}")),
            operations: 0,
            planned_loss: None,
            misdirected: None,
            locks: BTreeMap::new(),
            next_token: 1,
        }
    }

    // ---- faults and power

    pub(super) fn judge(&mut self, kind: Kind) -> Verdict {
        if !self.has_power {
            return Verdict::Fails;
        }
        if kind != Kind::Read {
            self.operations += 1;
            if self.planned_loss.as_ref().is_some_and(|loss| self.operations > loss.at_operation) {
                return Verdict::PowerFails;
            }
        }
        let probability = match kind {
            Kind::Read => self.faults.read_error,
            Kind::Change => self.faults.write_error,
            Kind::Sync => self.faults.sync_error,
        };
        if self.random.chance(probability) { Verdict::Fails } else { Verdict::Proceeds }
    }

    pub(super) fn schedule_power_loss(&mut self, after: u64, takes_node: bool) {
        self.planned_loss = Some(PlannedLoss { at_operation: self.operations + after, takes_node });
    }

    pub(super) fn cancel_power_loss(&mut self) {
        self.planned_loss = None;
    }

    pub(super) fn misdirect_next(&mut self, extension: String) {
        self.misdirected = Some(extension);
    }

    /// Where a write really goes: as a rule, where it should.
    pub(super) fn direct(&mut self, id: FileId, path: &Path, offset: u64) -> u64 {
        let is_meant = self.misdirected.as_deref().is_some_and(|extension| path.extension().is_some_and(|found| found == extension));
        let sectors = self.len(id) / SECTOR_BYTES;
        if !is_meant || sectors == 0 {
            return offset;
        }
        self.misdirected = None;
        self.random.below(sectors) * SECTOR_BYTES
    }

    /// The planned power loss is here. True if the node goes, too.
    pub(super) fn lose_power_as_planned(&mut self) -> bool {
        let takes_node = self.planned_loss.take().is_some_and(|loss| loss.takes_node);
        self.lose_power();
        takes_node
    }

    /// Forgets what was not durable. Operations fail until a new life begins.
    pub(super) fn lose_power(&mut self) {
        if !self.has_power {
            return;
        }
        self.has_power = false;
        self.names.lose_power(&mut self.random);
        for file in self.files.values_mut() {
            file.lose_power(&mut self.random);
            (file.links, file.handles) = (0, 0);
        }
        for (_, id) in self.names.files() {
            if let Some(file) = self.files.get_mut(&id) {
                file.links += 1;
            }
        }
        self.take_stock();
    }

    /// The handles of a life are dead: its locks are free, and what only it held open is gone.
    pub(super) fn end_life(&mut self) {
        self.locks.clear();
        self.planned_loss = None;
        for file in self.files.values_mut() {
            file.handles = 0;
        }
        self.take_stock();
    }

    pub(super) fn operations(&self) -> u64 {
        self.operations
    }

    pub(super) fn used(&self) -> u64 {
        self.used
    }

    pub(super) fn space(&self) -> DiskSpace {
        DiskSpace { total: self.capacity, available: self.capacity.saturating_sub(self.used) }
    }

    // ---- names

    /// What is at a path, if the mode allows to open or make it.
    pub(super) fn look_up(&self, path: &Path, mode: OpenMode) -> io::Result<Found> {
        let place = self.names.place(path)?.ok_or(Errno::ISDIR)?;
        match (self.names.get(&place), mode) {
            (Some(Inode::Directory(_)), _) => Err(Errno::ISDIR.into()),
            (Some(Inode::File(_)), OpenMode::CreateNew) => Err(Errno::EXIST.into()),
            (Some(Inode::File(id)), _) => Ok(Found::File(id)),
            (None, OpenMode::CreateOrOpen | OpenMode::CreateNew) => Ok(Found::Vacant(place)),
            (None, OpenMode::Read | OpenMode::ReadWrite) => Err(Errno::NOENT.into()),
        }
    }

    pub(super) fn create_file(&mut self, place: Place) -> FileId {
        let id = self.next_file;
        self.next_file += 1;
        self.files.insert(id, FileState::named_once());
        self.names.set(place, Some(Inode::File(id)));
        id
    }

    pub(super) fn open_handle(&mut self, id: FileId) {
        self.with_file(id, |file| file.handles += 1);
    }

    /// The file may be gone already: a power loss closes all handles.
    pub(super) fn close_handle(&mut self, id: FileId) {
        if self.files.contains_key(&id) {
            self.with_file(id, |file| file.handles = file.handles.saturating_sub(1));
        }
    }

    pub(super) fn list(&self, directory: &Path) -> io::Result<Vec<DiskEntry>> {
        let entries = self.names.list(self.names.directory(directory)?);
        Ok(entries
            .map(|(name, inode)| DiskEntry { path: directory.join(name), is_directory: matches!(inode, Inode::Directory(_)) })
            .collect())
    }

    pub(super) fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.names.find(path) {
            Ok(found) => Ok(found.is_some()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn create_directory_all(&mut self, path: &Path) -> io::Result<()> {
        let ancestors: Vec<&Path> = path.ancestors().collect();
        for ancestor in ancestors.into_iter().rev() {
            let Some(place) = self.names.place(ancestor)? else { continue };
            match self.names.get(&place) {
                None => self.names.make_directory(place),
                Some(Inode::Directory(_)) => {}
                Some(Inode::File(_)) => return Err(Errno::NOTDIR.into()),
            }
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let from = self.names.place(from)?.ok_or(Errno::BUSY)?;
        let to = self.names.place(to)?.ok_or(Errno::BUSY)?;
        if let Some(Inode::File(replaced)) = self.names.rename(from, to)? {
            self.with_file(replaced, |file| file.links -= 1);
        }
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let place = self.names.place(path)?.ok_or(Errno::ISDIR)?;
        let Inode::File(id) = self.names.get(&place).ok_or(Errno::NOENT)? else { return Err(Errno::ISDIR.into()) };
        self.names.set(place, None);
        self.with_file(id, |file| file.links -= 1);
        Ok(())
    }

    pub(super) fn sync_directory(&mut self, path: &Path) -> io::Result<()> {
        let directory = self.names.directory(path)?;
        self.names.sync(directory);
        if self.files.values().any(|file| file.links == 0 && file.handles == 0) {
            self.collect_garbage();
        }
        Ok(())
    }

    // ---- files

    pub(super) fn len(&self, id: FileId) -> u64 {
        self.files[&id].current.len()
    }

    pub(super) fn allocated_bytes(&self, id: FileId) -> u64 {
        self.files[&id].current.allocated_bytes()
    }

    pub(super) fn read(&self, id: FileId, buffer: &mut [u8], offset: u64) -> usize {
        self.files[&id].current.read(buffer, offset)
    }

    pub(super) fn draw_cached(&mut self) -> bool {
        self.random.chance(CACHED_READS)
    }

    /// Writes; as much as fits, if the disk is full.
    pub(super) fn write(&mut self, id: FileId, mut bytes: Vec<u8>, offset: u64) -> io::Result<()> {
        let fitting = self.fitting(id, offset, bytes.len());
        let is_short = fitting < bytes.len();
        bytes.truncate(fitting);
        self.with_file(id, |file| file.write(offset, bytes));
        if is_short { Err(Errno::NOSPC.into()) } else { Ok(()) }
    }

    /// Writes a random beginning of the bytes: what a failing write may have done.
    pub(super) fn write_beginning(&mut self, id: FileId, mut bytes: Vec<u8>, offset: u64) {
        let count = self.random.below(bytes.len() as u64 + 1);
        bytes.truncate(count as usize);
        // Out of space or not: the caller gets an error anyway.
        let _ = self.write(id, bytes, offset);
    }

    pub(super) fn set_len(&mut self, id: FileId, len: u64) {
        self.with_file(id, |file| file.set_len(len));
    }

    pub(super) fn allocate(&mut self, id: FileId, offset: u64, len: u64) -> io::Result<()> {
        if self.files[&id].current.missing_bytes(offset, len) > self.space().available {
            return Err(Errno::NOSPC.into());
        }
        self.with_file(id, |file| file.allocate(offset, len));
        Ok(())
    }

    pub(super) fn punch(&mut self, id: FileId, offset: u64, len: u64) {
        self.with_file(id, |file| file.punch(offset, len));
    }

    pub(super) fn sync(&mut self, id: FileId) {
        self.with_file(id, FileState::sync);
    }

    pub(super) fn fail_sync(&mut self, id: FileId) {
        if let Some(file) = self.files.get_mut(&id) {
            file.fail_sync(&mut self.random);
        }
    }

    // ---- locks

    /// A token for the lock of a file; `None` if somebody holds it.
    pub(super) fn lock(&mut self, id: FileId) -> Option<u64> {
        if self.locks.contains_key(&id) {
            return None;
        }
        let token = self.next_token;
        self.next_token += 1;
        self.locks.insert(id, token);
        Some(token)
    }

    pub(super) fn unlock(&mut self, id: FileId, token: u64) {
        if self.locks.get(&id) == Some(&token) {
            self.locks.remove(&id);
        }
    }

    // ---- for tests

    pub(super) fn flip_bit(&mut self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        let id = self.existing_file(path)?;
        if offset >= self.len(id) {
            return Err(Errno::INVAL.into());
        }
        self.with_file(id, |file| file.flip_bit(offset, bit));
        Ok(())
    }

    pub(super) fn read_whole(&self, path: &Path) -> io::Result<Vec<u8>> {
        let id = self.existing_file(path)?;
        let len = usize::try_from(self.len(id)).map_err(|_| Errno::FBIG)?;
        let mut content = vec![0; len];
        self.read(id, &mut content, 0);
        Ok(content)
    }

    pub(super) fn all_files(&self) -> Vec<PathBuf> {
        self.names.files().into_iter().map(|(path, _)| path).collect()
    }

    pub(super) fn existing_file(&self, path: &Path) -> io::Result<FileId> {
        match self.look_up(path, OpenMode::Read)? {
            Found::File(id) => Ok(id),
            Found::Vacant(_) => Err(Errno::NOENT.into()),
        }
    }

    /// How many of `len` bytes at `offset` the free space takes.
    fn fitting(&self, id: FileId, offset: u64, len: usize) -> usize {
        let image = &self.files[&id].current;
        let available = self.space().available;
        if image.missing_bytes(offset, len as u64) <= available {
            return len;
        }
        // Few writes meet a full disk: look page by page for the first that does not fit.
        let mut fitting = 0;
        while fitting < len {
            let until_border = (PAGE_BYTES - (offset + fitting as u64) % PAGE_BYTES) as usize;
            let next = (fitting + until_border).min(len);
            if image.missing_bytes(offset, next as u64) > available {
                break;
            }
            fitting = next;
        }
        fitting
    }

    /// Changes a file and keeps the account of used space right.
    fn with_file(&mut self, id: FileId, action: impl FnOnce(&mut FileState)) {
        let file = self.files.get_mut(&id).expect("an open or named file exists");
        self.used -= file.charge();
        action(file);
        self.used += file.charge();
    }

    /// Counts again what is there, after many things have gone at once.
    fn take_stock(&mut self) {
        self.collect_garbage();
        self.used = self.files.values().map(FileState::charge).sum();
    }

    /// Forgets files that no name can lead to any more and that nobody has open.
    fn collect_garbage(&mut self) {
        let referenced = self.names.referenced_files();
        self.files.retain(|id, file| file.handles > 0 || referenced.contains(id));
    }
}

//! The directories of a disk, and which of their names would survive a power loss.

use crate::sim::random::Random;
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

pub(super) type FileId = u64;
type DirectoryId = u64;

const ROOT: DirectoryId = 0;

/// What a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inode {
    File(FileId),
    Directory(DirectoryId),
}

#[derive(Default)]
struct Directory {
    current: BTreeMap<OsString, Inode>,
    durable: BTreeMap<OsString, Inode>,
}

/// A name set or removed.
#[derive(Clone)]
struct Effect {
    directory: DirectoryId,
    name: OsString,
    inode: Option<Inode>,
}

/// Effects that survive together or not at all: one, or the two of a rename.
type Change = Vec<Effect>;

/// A place for a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    directory: DirectoryId,
    name: OsString,
}

pub(super) struct Names {
    directories: BTreeMap<DirectoryId, Directory>,
    /// Changes that are not durable yet, oldest first.
    unsynced: Vec<Change>,
    next_directory: DirectoryId,
}

impl Names {
    pub(super) fn new() -> Self {
        Self { directories: BTreeMap::from([(ROOT, Directory::default())]), unsynced: Vec::new(), next_directory: ROOT + 1 }
    }

    /// What a path leads to, if anything.
    pub(super) fn find(&self, path: &Path) -> io::Result<Option<Inode>> {
        match self.place(path)? {
            None => Ok(Some(Inode::Directory(ROOT))),
            Some(place) => Ok(self.get(&place)),
        }
    }

    pub(super) fn directory(&self, path: &Path) -> io::Result<u64> {
        match self.find(path)? {
            Some(Inode::Directory(id)) => Ok(id),
            Some(Inode::File(_)) => Err(Errno::NOTDIR.into()),
            None => Err(Errno::NOENT.into()),
        }
    }

    /// Where the last name of a path lies; `None` for the root. Its directory must exist.
    pub(super) fn place(&self, path: &Path) -> io::Result<Option<Place>> {
        let names = normalized(path);
        let Some((last, parents)) = names.split_last() else { return Ok(None) };
        let mut directory = ROOT;
        for name in parents {
            directory = match self.directories[&directory].current.get(*name) {
                Some(Inode::Directory(id)) => *id,
                Some(Inode::File(_)) => return Err(Errno::NOTDIR.into()),
                None => return Err(Errno::NOENT.into()),
            };
        }
        Ok(Some(Place { directory, name: last.to_os_string() }))
    }

    pub(super) fn get(&self, place: &Place) -> Option<Inode> {
        self.directories[&place.directory].current.get(&place.name).copied()
    }

    pub(super) fn list(&self, directory: u64) -> impl Iterator<Item = (&OsString, &Inode)> {
        self.directories[&directory].current.iter()
    }

    pub(super) fn set(&mut self, place: Place, inode: Option<Inode>) {
        self.apply(vec![Effect { directory: place.directory, name: place.name, inode }]);
    }

    /// Moves a name, replacing what `to` led to: a file, or an empty directory.
    pub(super) fn rename(&mut self, from: Place, to: Place) -> io::Result<Option<Inode>> {
        let inode = self.get(&from).ok_or(Errno::NOENT)?;
        let replaced = self.get(&to);
        match (inode, replaced) {
            (Inode::File(_), Some(Inode::Directory(_))) => return Err(Errno::ISDIR.into()),
            (Inode::Directory(_), Some(Inode::File(_))) => return Err(Errno::NOTDIR.into()),
            (Inode::Directory(_), Some(Inode::Directory(old))) if !self.directories[&old].current.is_empty() => {
                return Err(Errno::NOTEMPTY.into());
            }
            (Inode::Directory(moved), _) if self.is_inside(to.directory, moved) => return Err(Errno::INVAL.into()),
            _ => {}
        }
        if from != to {
            self.apply(vec![
                Effect { directory: from.directory, name: from.name, inode: None },
                Effect { directory: to.directory, name: to.name, inode: Some(inode) },
            ]);
        }
        Ok(replaced.filter(|old| *old != inode))
    }

    pub(super) fn make_directory(&mut self, place: Place) {
        let id = self.next_directory;
        self.next_directory += 1;
        self.directories.insert(id, Directory::default());
        self.set(place, Some(Inode::Directory(id)));
    }

    /// Makes the names of a directory durable, and with them only what a rename ties to them: other directories stay at risk.
    pub(super) fn sync(&mut self, directory: u64) {
        let mut dirty = BTreeSet::from([directory]);
        let mut durable: Vec<Change> = Vec::new();
        let mut rest: Vec<Change> = Vec::new();
        for change in std::mem::take(&mut self.unsynced).into_iter().rev() {
            if change.iter().any(|effect| dirty.contains(&effect.directory)) {
                dirty.extend(change.iter().map(|effect| effect.directory));
                durable.push(change);
            } else {
                rest.push(change);
            }
        }
        rest.reverse();
        self.unsynced = rest;
        for change in durable.into_iter().rev() {
            self.make_durable(change);
        }
    }

    /// Leaves what the device holds: of each directory, the synced names and the first few changes since.
    pub(super) fn lose_power(&mut self, random: &mut Random) {
        let chance_of_loss = [0.0, 0.2, 0.5, 1.0][random.index(4)];
        let mut cut: BTreeSet<DirectoryId> = BTreeSet::new();
        for change in std::mem::take(&mut self.unsynced) {
            let is_cut = change.iter().any(|effect| cut.contains(&effect.directory));
            if is_cut || random.chance(chance_of_loss) {
                cut.extend(change.iter().map(|effect| effect.directory));
            } else {
                self.make_durable(change);
            }
        }
        for directory in self.directories.values_mut() {
            directory.current = directory.durable.clone();
        }
    }

    /// Every file that a name leads to now, by path, in order.
    pub(super) fn files(&self) -> Vec<(PathBuf, FileId)> {
        let mut found = Vec::new();
        let mut open = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, directory)) = open.pop() {
            for (name, inode) in self.list(directory) {
                match inode {
                    Inode::File(id) => found.push((path.join(name), *id)),
                    Inode::Directory(id) => open.push((path.join(name), *id)),
                }
            }
        }
        found.sort();
        found
    }

    /// Every file that a name leads to, or may lead to after a power loss.
    pub(super) fn referenced_files(&self) -> BTreeSet<FileId> {
        let stored = self.directories.values().flat_map(|directory| directory.current.values().chain(directory.durable.values()));
        let unsynced = self.unsynced.iter().flatten().filter_map(|effect| effect.inode.as_ref());
        stored.chain(unsynced).filter_map(|inode| if let Inode::File(id) = inode { Some(*id) } else { None }).collect()
    }

    fn apply(&mut self, change: Change) {
        for effect in &change {
            let names = &mut self.directories.get_mut(&effect.directory).expect("directories are never forgotten").current;
            set_name(names, effect.clone());
        }
        self.unsynced.push(change);
    }

    fn make_durable(&mut self, change: Change) {
        for effect in change {
            let names = &mut self.directories.get_mut(&effect.directory).expect("directories are never forgotten").durable;
            set_name(names, effect);
        }
    }

    /// Whether a directory is `ancestor` or lies below it.
    fn is_inside(&self, directory: DirectoryId, ancestor: DirectoryId) -> bool {
        if directory == ancestor {
            return true;
        }
        let below = self.list(ancestor).filter_map(|(_, inode)| if let Inode::Directory(id) = inode { Some(*id) } else { None });
        below.into_iter().any(|child| self.is_inside(directory, child))
    }
}

fn set_name(names: &mut BTreeMap<OsString, Inode>, effect: Effect) {
    match effect.inode {
        Some(inode) => names.insert(effect.name, inode),
        None => names.remove(&effect.name),
    };
}

/// The names on a path from the root. Relative paths begin there, too.
fn normalized(path: &Path) -> Vec<&OsStr> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::ParentDir => {
                names.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    names
}

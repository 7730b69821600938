//! The model: inodes and names, and what Linux answers to each call. Who asks owns everything.
//!
//! Where several things are wrong with a call, it is the order of Linux's checks that decides: the parents of both paths first, in the order in
//! which they are given, then what is at their ends.

use super::operation::{Operation, Path, Range, Step};
use super::outcome::{Bytes, Failure, Holds, Kind, Outcome, Record, Seen, Snapshot, Status};
use cairn_common::wire::master::{RenameMode, XattrMode};
use std::collections::BTreeMap;

/// Symlinks on one way.
pub const SYMLINKS_MAX: u32 = 40;
const SET_GROUP_ID: u16 = 0o2000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Id(u64);

const ROOT: Id = Id(0);

#[derive(Debug)]
enum Body {
    File(Vec<u8>),
    Directory(BTreeMap<String, Id>),
    Symlink(Path),
}

#[derive(Debug)]
struct Node {
    mode: u16,
    xattrs: BTreeMap<&'static str, Vec<u8>>,
    body: Body,
}

/// Whether a symlink at the end of a path is what is meant, or what it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    Itself,
    Followed,
}

/// The end of a path.
struct Place {
    /// From the root to the directory that has or would have the name.
    trail: Vec<Id>,
    name: String,
    node: Option<Id>,
}

impl Place {
    fn parent(&self) -> Id {
        self.trail.last().copied().unwrap_or(ROOT)
    }

    fn found(&self) -> Result<Id, Failure> {
        self.node.ok_or(Failure::NotFound)
    }
}

/// A file system.
#[derive(Debug)]
pub struct Tree {
    nodes: BTreeMap<Id, Node>,
    next: u64,
}

impl Default for Tree {
    fn default() -> Self {
        let root = Node { mode: 0o755, xattrs: BTreeMap::new(), body: Body::Directory(BTreeMap::new()) };
        Self { nodes: BTreeMap::from([(ROOT, root)]), next: 1 }
    }
}

impl Tree {
    /// What a sequence should give.
    pub fn live(steps: &[Step]) -> Record {
        let mut tree = Self::default();
        let outcomes = steps.iter().map(|step| tree.apply(&step.operation)).collect();
        Record { outcomes, snapshots: vec![tree.snapshot()] }
    }

    pub fn apply(&mut self, operation: &Operation) -> Outcome {
        let result = match operation {
            Operation::MakeDirectory { path, mode } => self.make_directory(path, *mode),
            Operation::RemoveDirectory { path } => self.remove_directory(path),
            Operation::Create { path, mode, exclusive } => self.create(path, *mode, *exclusive),
            Operation::Write { path, offset, data } => self.write(path, Some(*offset), &data.bytes()),
            Operation::Append { path, data } => self.write(path, None, &data.bytes()),
            Operation::Read { path, range } => self.read(path, *range),
            Operation::Truncate { path, size } => self.truncate(path, *size),
            Operation::Punch { path, range } => self.punch(path, *range),
            Operation::Reserve { path, range } => self.reserve(path, *range),
            Operation::Copy { from, range, to, offset } => self.copy(from, *range, to, *offset),
            Operation::Unlink { path } => self.unlink(path),
            Operation::Rename { from, to, mode } => self.rename(from, to, *mode),
            Operation::Link { from, to } => self.link(from, to),
            Operation::Symlink { target, path } => self.symlink(target, path),
            Operation::ReadLink { path } => self.read_link(path),
            Operation::ChangeMode { path, mode } => self.change_mode(path, *mode),
            Operation::SetXattr { path, name, value, mode } => self.set_xattr(path, name, value.bytes(), *mode),
            Operation::GetXattr { path, name } => self.get_xattr(path, name),
            Operation::RemoveXattr { path, name } => self.remove_xattr(path, name),
            Operation::ListXattrs { path } => self.list_xattrs(path),
            Operation::Status { path } => self.status(path),
            Operation::List { path } => self.list(path),
            Operation::Sync { path } => self.sync(path),
        };
        self.forget_unnamed();
        result.into()
    }

    // ---- ways

    fn find(&self, path: &Path, last: Last) -> Result<Place, Failure> {
        let (mut trail, mut links) = (vec![ROOT], 0);
        let mut ahead: Vec<&str> = path.names().rev().collect();
        loop {
            let name = ahead.pop().ok_or(Failure::NotFound)?;
            let is_last = ahead.is_empty();
            let parent = trail.last().copied().unwrap_or(ROOT);
            let node = self.entries(parent)?.get(name).copied();
            match node.map(|id| (id, &self.nodes[&id].body)) {
                Some((_, Body::Symlink(target))) if !is_last || last == Last::Followed => {
                    links += 1;
                    if links > SYMLINKS_MAX {
                        return Err(Failure::TooManySymlinks);
                    }
                    ahead.extend(target.names().rev());
                }
                _ if is_last => return Ok(Place { trail, name: name.to_owned(), node }),
                Some((id, Body::Directory(_))) => trail.push(id),
                Some(_) => return Err(Failure::NotDirectory),
                None => return Err(Failure::NotFound),
            }
        }
    }

    fn follow(&self, path: &Path) -> Result<Id, Failure> {
        self.find(path, Last::Followed)?.found()
    }

    fn entries(&self, id: Id) -> Result<&BTreeMap<String, Id>, Failure> {
        match &self.nodes[&id].body {
            Body::Directory(entries) => Ok(entries),
            _ => Err(Failure::NotDirectory),
        }
    }

    fn node(&mut self, id: Id) -> Result<&mut Node, Failure> {
        self.nodes.get_mut(&id).ok_or(Failure::NotFound)
    }

    fn is_directory(&self, id: Id) -> bool {
        matches!(self.nodes[&id].body, Body::Directory(_))
    }

    /// Lets a name lead somewhere, or nowhere.
    fn put(&mut self, place: &Place, id: Option<Id>) {
        if let Some(Node { body: Body::Directory(entries), .. }) = self.nodes.get_mut(&place.parent()) {
            match id {
                Some(id) => drop(entries.insert(place.name.clone(), id)),
                None => drop(entries.remove(&place.name)),
            }
        }
    }

    fn add(&mut self, place: &Place, mode: u16, body: Body) {
        let id = Id(self.next);
        self.next += 1;
        self.nodes.insert(id, Node { mode, xattrs: BTreeMap::new(), body });
        self.put(place, Some(id));
    }

    /// Nobody keeps a file open: what has no name is gone.
    fn forget_unnamed(&mut self) {
        let mut named = vec![ROOT];
        for node in self.nodes.values() {
            if let Body::Directory(entries) = &node.body {
                named.extend(entries.values());
            }
        }
        self.nodes.retain(|id, _| named.contains(id));
    }

    // ---- names

    fn make_directory(&mut self, path: &Path, mode: u16) -> Result<Outcome, Failure> {
        let place = self.find_new(path)?;
        let inherited = self.nodes[&place.parent()].mode & SET_GROUP_ID;
        self.add(&place, mode | inherited, Body::Directory(BTreeMap::new()));
        Ok(Outcome::Done)
    }

    /// Where something new is to be. A symlink in its place is in the way, wherever it leads.
    fn find_new(&self, path: &Path) -> Result<Place, Failure> {
        let place = self.find(path, Last::Itself)?;
        if place.node.is_some() { Err(Failure::Exists) } else { Ok(place) }
    }

    fn remove_directory(&mut self, path: &Path) -> Result<Outcome, Failure> {
        let place = self.find(path, Last::Itself)?;
        if !self.entries(place.found()?)?.is_empty() {
            return Err(Failure::NotEmpty);
        }
        self.put(&place, None);
        Ok(Outcome::Done)
    }

    fn create(&mut self, path: &Path, mode: u16, exclusive: bool) -> Result<Outcome, Failure> {
        let place = if exclusive { self.find_new(path)? } else { self.find(path, Last::Followed)? };
        match place.node {
            None => self.add(&place, mode, Body::File(Vec::new())),
            Some(id) if self.is_directory(id) => return Err(Failure::IsDirectory),
            Some(_) => {}
        }
        Ok(Outcome::Done)
    }

    fn unlink(&mut self, path: &Path) -> Result<Outcome, Failure> {
        let place = self.find(path, Last::Itself)?;
        if self.is_directory(place.found()?) {
            return Err(Failure::IsDirectory);
        }
        self.put(&place, None);
        Ok(Outcome::Done)
    }

    fn rename(&mut self, from: &Path, to: &Path, mode: RenameMode) -> Result<Outcome, Failure> {
        let (from, to) = (self.find(from, Last::Itself)?, self.find(to, Last::Itself)?);
        let source = from.found()?;
        match (mode, to.node) {
            (RenameMode::NoReplace, Some(_)) => return Err(Failure::Exists),
            (RenameMode::Exchange, None) => return Err(Failure::NotFound),
            _ => {}
        }
        if to.trail.contains(&source) {
            return Err(Failure::Invalid);
        }
        if to.node.is_some_and(|target| from.trail.contains(&target)) {
            return Err(if mode == RenameMode::Exchange { Failure::Invalid } else { Failure::NotEmpty });
        }
        if to.node == Some(source) {
            return Ok(Outcome::Done);
        }
        if let Some(target) = to.node.filter(|_| mode == RenameMode::Replace) {
            self.check_replaceable(source, target)?;
        }
        self.put(&to, Some(source));
        self.put(&from, to.node.filter(|_| mode == RenameMode::Exchange));
        Ok(Outcome::Done)
    }

    fn check_replaceable(&self, source: Id, target: Id) -> Result<(), Failure> {
        match (self.is_directory(source), self.is_directory(target)) {
            (true, false) => Err(Failure::NotDirectory),
            (false, true) => Err(Failure::IsDirectory),
            (true, true) if !self.entries(target)?.is_empty() => Err(Failure::NotEmpty),
            _ => Ok(()),
        }
    }

    fn link(&mut self, from: &Path, to: &Path) -> Result<Outcome, Failure> {
        let source = self.find(from, Last::Itself)?.found()?;
        let place = self.find_new(to)?;
        if self.is_directory(source) {
            return Err(Failure::NotPermitted);
        }
        self.put(&place, Some(source));
        Ok(Outcome::Done)
    }

    fn symlink(&mut self, target: &Path, path: &Path) -> Result<Outcome, Failure> {
        let place = self.find_new(path)?;
        self.add(&place, 0o777, Body::Symlink(target.clone()));
        Ok(Outcome::Done)
    }

    fn read_link(&self, path: &Path) -> Result<Outcome, Failure> {
        match &self.nodes[&self.find(path, Last::Itself)?.found()?].body {
            Body::Symlink(target) => Ok(Outcome::Target(target.clone())),
            _ => Err(Failure::Invalid),
        }
    }

    // ---- content

    /// A file that is opened for writing.
    fn content(&mut self, path: &Path) -> Result<&mut Vec<u8>, Failure> {
        let id = self.follow(path)?;
        match &mut self.node(id)?.body {
            Body::File(content) => Ok(content),
            _ => Err(Failure::IsDirectory),
        }
    }

    /// At the end, if no offset is given.
    fn write(&mut self, path: &Path, offset: Option<u64>, data: &[u8]) -> Result<Outcome, Failure> {
        let content = self.content(path)?;
        put_at(content, offset.map_or(content.len(), |offset| offset as usize), data);
        Ok(Outcome::Count(data.len() as u64))
    }

    fn read(&mut self, path: &Path, range: Range) -> Result<Outcome, Failure> {
        Ok(Outcome::Bytes(Bytes(part(self.content(path)?, range))))
    }

    fn truncate(&mut self, path: &Path, size: u64) -> Result<Outcome, Failure> {
        self.content(path)?.resize(size as usize, 0);
        Ok(Outcome::Done)
    }

    fn punch(&mut self, path: &Path, range: Range) -> Result<Outcome, Failure> {
        let content = self.content(path)?;
        if range.len == 0 {
            return Err(Failure::Invalid);
        }
        let end = content.len().min(range.end() as usize);
        if let Some(hole) = content.get_mut(range.offset as usize..end) {
            hole.fill(0);
        }
        Ok(Outcome::Done)
    }

    fn reserve(&mut self, path: &Path, range: Range) -> Result<Outcome, Failure> {
        let content = self.content(path)?;
        if range.len == 0 {
            return Err(Failure::Invalid);
        }
        content.resize(content.len().max(range.end() as usize), 0);
        Ok(Outcome::Done)
    }

    /// The source is opened for reading first, which a directory may be.
    fn copy(&mut self, from: &Path, range: Range, to: &Path, offset: u64) -> Result<Outcome, Failure> {
        let source = self.follow(from)?;
        let target = self.follow(to)?;
        self.content(to)?;
        let data = part(self.content(from)?, range);
        let len = data.len() as u64;
        if source == target && offset + len > range.offset && offset < range.offset + len {
            return Err(Failure::Invalid);
        }
        put_at(self.content(to)?, offset as usize, &data);
        Ok(Outcome::Count(len))
    }

    fn sync(&self, path: &Path) -> Result<Outcome, Failure> {
        self.follow(path).map(|_| Outcome::Done)
    }

    // ---- attributes

    fn change_mode(&mut self, path: &Path, mode: u16) -> Result<Outcome, Failure> {
        let id = self.follow(path)?;
        self.node(id)?.mode = mode;
        Ok(Outcome::Done)
    }

    fn set_xattr(&mut self, path: &Path, name: &'static str, value: Vec<u8>, mode: XattrMode) -> Result<Outcome, Failure> {
        let id = self.follow(path)?;
        let xattrs = &mut self.node(id)?.xattrs;
        match (mode, xattrs.contains_key(name)) {
            (XattrMode::Create, true) => Err(Failure::Exists),
            (XattrMode::Replace, false) => Err(Failure::NoAttribute),
            _ => {
                xattrs.insert(name, value);
                Ok(Outcome::Done)
            }
        }
    }

    fn get_xattr(&self, path: &Path, name: &str) -> Result<Outcome, Failure> {
        let value = self.nodes[&self.follow(path)?].xattrs.get(name).cloned();
        value.map(|value| Outcome::Bytes(Bytes(value))).ok_or(Failure::NoAttribute)
    }

    fn remove_xattr(&mut self, path: &Path, name: &str) -> Result<Outcome, Failure> {
        let id = self.follow(path)?;
        self.node(id)?.xattrs.remove(name).map(|_| Outcome::Done).ok_or(Failure::NoAttribute)
    }

    fn list_xattrs(&self, path: &Path) -> Result<Outcome, Failure> {
        let xattrs = &self.nodes[&self.follow(path)?].xattrs;
        Ok(Outcome::Xattrs(xattrs.keys().map(|name| (*name).to_owned()).collect()))
    }

    fn status(&self, path: &Path) -> Result<Outcome, Failure> {
        Ok(Outcome::Status(self.status_of(self.find(path, Last::Itself)?.found()?)))
    }

    fn list(&self, path: &Path) -> Result<Outcome, Failure> {
        let entries = self.entries(self.follow(path)?)?;
        Ok(Outcome::Entries(entries.iter().map(|(name, id)| (name.clone(), self.kind(*id))).collect()))
    }

    fn kind(&self, id: Id) -> Kind {
        match self.nodes[&id].body {
            Body::File(_) => Kind::File,
            Body::Directory(_) => Kind::Directory,
            Body::Symlink(_) => Kind::Symlink,
        }
    }

    fn status_of(&self, id: Id) -> Status {
        let node = &self.nodes[&id];
        let size = match &node.body {
            Body::File(content) => Some(content.len() as u64),
            Body::Directory(_) => None,
            Body::Symlink(target) => Some(target.0.len() as u64),
        };
        Status { kind: self.kind(id), mode: node.mode, links: self.links(id), size }
    }

    /// Names; of a directory also its own `.`, and the `..` of those in it.
    fn links(&self, id: Id) -> u64 {
        if let Body::Directory(entries) = &self.nodes[&id].body {
            return 2 + entries.values().filter(|entry| self.is_directory(**entry)).count() as u64;
        }
        let names = self.nodes.values().filter_map(|node| if let Body::Directory(entries) = &node.body { Some(entries) } else { None });
        names.flat_map(BTreeMap::values).filter(|entry| **entry == id).count() as u64
    }

    /// All there is, each directory before what is in it.
    fn walk(&self) -> Vec<(Path, Id)> {
        let (mut met, mut ahead) = (Vec::new(), vec![(None, ROOT)]);
        while let Some((path, id)) = ahead.pop() {
            if let Body::Directory(entries) = &self.nodes[&id].body {
                ahead.extend(entries.iter().map(|(name, id)| (Some(Path::below(path.as_ref(), name)), *id)));
            }
            met.extend(path.map(|path| (path, id)));
        }
        met
    }

    /// The paths at which there is something of a kind that is wanted.
    pub fn paths(&self, is_wanted: impl Fn(Kind) -> bool) -> Vec<Path> {
        self.walk().into_iter().filter(|(_, id)| is_wanted(self.kind(*id))).map(|(path, _)| path).collect()
    }

    fn snapshot(&self) -> Snapshot {
        self.walk().into_iter().map(|(path, id)| (path, self.seen(id))).collect()
    }

    fn seen(&self, id: Id) -> Seen {
        let node = &self.nodes[&id];
        let holds = match &node.body {
            Body::File(content) => Holds::Content(Bytes(content.clone())),
            Body::Directory(_) => Holds::Entries,
            Body::Symlink(target) => Holds::Target(target.clone()),
        };
        let xattrs = node.xattrs.iter().map(|(name, value)| ((*name).to_owned(), Bytes(value.clone()))).collect();
        Seen { status: self.status_of(id), holds, xattrs }
    }
}

/// Writing nothing makes no file longer.
fn put_at(content: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let end = offset + data.len();
    content.resize(content.len().max(end), 0);
    content[offset..end].copy_from_slice(data);
}

/// What there is of a range.
fn part(content: &[u8], range: Range) -> Vec<u8> {
    let end = content.len().min(range.end() as usize);
    content.get(range.offset as usize..end).unwrap_or_default().to_vec()
}

//! The reference: a file system of plain maps, small enough to be read in one sitting. Links are counted by looking, file content
//! is one cell per byte: which byte of which chunk is there, or nothing.

use crate::state::read::DEFAULT_POOL;
use cairn_common::attributes::{AttributeChange, Attributes, FileKind, NewInode, TimeChange};
use cairn_common::error::FsError;
use cairn_common::extent::Extent;
use cairn_common::ids::{ChunkId, Ino, PoolId, SessionId};
use cairn_common::time::Timestamp;
use cairn_common::wire::master::{FileCommit, FileCompaction, Mutation, MutationReply, RenameMode, XattrMode};
use std::collections::{BTreeMap, BTreeSet};

type Answer = Result<MutationReply, FsError>;

#[derive(Debug, Clone)]
pub struct Node {
    /// What does not follow from the rest.
    base: Attributes,
    pub entries: BTreeMap<Vec<u8>, Ino>,
    parent: Ino,
    pub content: Vec<Option<(ChunkId, u32)>>,
    pub target: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    holders: BTreeSet<SessionId>,
    is_unnamed: bool,
}

#[derive(Debug, Clone)]
pub struct Model {
    pub nodes: BTreeMap<Ino, Node>,
    pub next_ino: u64,
    now: Timestamp,
}

impl Model {
    pub fn new(root: Attributes) -> Self {
        Self { nodes: BTreeMap::from([(Ino::ROOT, Node::new(root, Ino::ROOT))]), next_ino: 2, now: Timestamp::EPOCH }
    }

    pub fn kind(&self, ino: Ino) -> Option<FileKind> {
        self.nodes.get(&ino).map(|node| node.base.kind)
    }

    /// `version` and `allocated` are 0: the model knows neither.
    pub fn attributes(&self, ino: Ino) -> Attributes {
        let node = &self.nodes[&ino];
        let names = self.nodes.values().flat_map(|node| node.entries.values()).filter(|named| **named == ino).count() as u32;
        let (nlink, size) = match node.base.kind {
            FileKind::Directory if names == 0 && ino != Ino::ROOT => (0, 0),
            FileKind::Directory => {
                let below = node.entries.values().filter(|below| self.kind(**below) == Some(FileKind::Directory)).count();
                (2 + below as u32, node.entries.len())
            }
            FileKind::Symlink => (names, node.target.len()),
            _ => (names, node.content.len()),
        };
        Attributes { nlink, size: size as u64, has_xattrs: !node.xattrs.is_empty(), ..node.base.clone() }
    }

    pub fn mutate(&mut self, now: Timestamp, session: SessionId, holders: &[SessionId], mutation: &Mutation) -> Answer {
        self.now = now;
        match mutation {
            Mutation::Create { parent, name, inode, or_existing, .. } => self.create(*parent, name, inode, *or_existing),
            Mutation::CreateUnnamed { parent, inode } => {
                self.directory(*parent)?;
                let ino = self.make(*parent, inode);
                let node = self.node(ino);
                node.holders.insert(session);
                node.is_unnamed = true;
                Ok(MutationReply::Inode(self.attributes(ino)))
            }
            Mutation::Link { ino, parent, name } => self.link(*ino, *parent, name),
            Mutation::Unlink { parent, name } => self.unlink(*parent, name, false, holders),
            Mutation::RemoveDirectory { parent, name } => self.unlink(*parent, name, true, holders),
            Mutation::Rename { from_parent, from_name, to_parent, to_name, mode } => {
                self.rename((*from_parent, from_name), (*to_parent, to_name), *mode, holders)
            }
            Mutation::SetAttributes { ino, change } => self.set_attributes(*ino, change),
            Mutation::SetXattr { ino, name, value, mode } => {
                let node = self.nodes.get_mut(ino).ok_or(FsError::Stale)?;
                match (mode, node.xattrs.contains_key(name)) {
                    (XattrMode::Create, true) => return Err(FsError::Exists),
                    (XattrMode::Replace, false) => return Err(FsError::NoAttribute),
                    _ => {}
                }
                node.xattrs.insert(name.clone(), value.clone());
                node.base.ctime = now;
                Ok(MutationReply::Done)
            }
            Mutation::RemoveXattr { ino, name } => {
                let node = self.nodes.get_mut(ino).ok_or(FsError::Stale)?;
                node.xattrs.remove(name).ok_or(FsError::NoAttribute)?;
                node.base.ctime = now;
                Ok(MutationReply::Done)
            }
            Mutation::Commit { files, .. } | Mutation::CommitSynced { files, .. } => {
                Ok(MutationReply::Committed(files.iter().map(|file| self.commit(file)).collect()))
            }
            Mutation::PunchHole { ino, offset, bytes, extend } => {
                let content = self.content(*ino)?;
                let end = (offset + bytes) as usize;
                if *extend && content.len() < end {
                    content.resize(end, None);
                }
                let end = end.min(content.len());
                content.get_mut(*offset as usize..end).unwrap_or_default().fill(None);
                self.touch(*ino);
                Ok(MutationReply::Inode(self.attributes(*ino)))
            }
            Mutation::NoteAccess { accesses } => {
                for access in accesses {
                    if let Some(node) = self.nodes.get_mut(&access.ino) {
                        node.base.atime = node.base.atime.max(access.at);
                    }
                }
                Ok(MutationReply::Done)
            }
            Mutation::Compact { files, .. } => Ok(self.compact(files)),
            Mutation::SetPolicy { ino, pool } => {
                self.directory(*ino)?;
                let base = &mut self.node(*ino).base;
                (base.pool, base.ctime) = (*pool, now);
                Ok(MutationReply::Inode(self.attributes(*ino)))
            }
            Mutation::CopyRange { from, from_offset, to, to_offset, bytes } => self.copy(*from, *from_offset, *to, *to_offset, *bytes),
        }
    }

    /// The session closes an inode.
    pub fn release(&mut self, session: SessionId, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino)
            && node.holders.remove(&session)
            && node.holders.is_empty()
        {
            self.nodes.remove(&ino);
        }
    }

    fn node(&mut self, ino: Ino) -> &mut Node {
        self.nodes.get_mut(&ino).unwrap()
    }

    /// Content or entries have changed.
    fn touch(&mut self, ino: Ino) {
        let now = self.now;
        let base = &mut self.node(ino).base;
        (base.mtime, base.ctime) = (now, now);
    }

    fn directory(&self, ino: Ino) -> Result<&Node, FsError> {
        let node = self.nodes.get(&ino).ok_or(FsError::NotFound)?;
        if node.base.kind != FileKind::Directory {
            return Err(FsError::NotDirectory);
        }
        if self.attributes(ino).nlink == 0 { Err(FsError::NotFound) } else { Ok(node) }
    }

    fn content(&mut self, ino: Ino) -> Result<&mut Vec<Option<(ChunkId, u32)>>, FsError> {
        let node = self.nodes.get_mut(&ino).ok_or(FsError::Stale)?;
        match node.base.kind {
            FileKind::Regular => Ok(&mut node.content),
            FileKind::Directory => Err(FsError::IsDirectory),
            _ => Err(FsError::Invalid),
        }
    }

    fn create(&mut self, parent: Ino, name: &[u8], new: &NewInode, or_existing: bool) -> Answer {
        if let Some(existing) = self.directory(parent)?.entries.get(name) {
            return match self.nodes[existing].base.kind {
                FileKind::Regular if or_existing => Ok(MutationReply::Inode(self.attributes(*existing))),
                FileKind::Directory if or_existing => Err(FsError::IsDirectory),
                _ => Err(FsError::Exists),
            };
        }
        let ino = self.make(parent, new);
        self.node(parent).entries.insert(name.to_vec(), ino);
        self.touch(parent);
        Ok(MutationReply::Inode(self.attributes(ino)))
    }

    fn make(&mut self, parent: Ino, new: &NewInode) -> Ino {
        let ino = Ino(self.next_ino);
        self.next_ino += 1;
        let above = &self.nodes[&parent].base;
        let inherits = above.mode & 0o2000 != 0;
        let mode = match new.kind {
            FileKind::Symlink => 0o777,
            FileKind::Directory if inherits => new.mode | 0o2000,
            _ => new.mode,
        };
        let base = Attributes {
            ino,
            kind: new.kind,
            mode,
            uid: new.owner.uid,
            gid: if inherits { above.gid } else { new.owner.gid },
            nlink: 0,
            rdev: new.rdev,
            size: 0,
            allocated: 0,
            atime: self.now,
            mtime: self.now,
            ctime: self.now,
            btime: self.now,
            version: 0,
            has_xattrs: false,
            pool: (new.kind == FileKind::Regular).then(|| self.policy(parent)).flatten(),
        };
        let mut node = Node::new(base, parent);
        node.target = new.symlink_target.clone();
        self.nodes.insert(ino, node);
        ino
    }

    /// Of the nearest directory that has one.
    fn policy(&self, directory: Ino) -> Option<PoolId> {
        let node = &self.nodes[&directory];
        node.base.pool.or_else(|| if directory == Ino::ROOT { None } else { self.policy(node.parent) })
    }

    fn link(&mut self, ino: Ino, parent: Ino, name: &[u8]) -> Answer {
        let is_taken = self.directory(parent)?.entries.contains_key(name);
        let node = self.nodes.get(&ino).ok_or(FsError::Stale)?;
        if is_taken {
            return Err(FsError::Exists);
        }
        if node.base.kind == FileKind::Directory {
            return Err(FsError::NotPermitted);
        }
        if self.attributes(ino).nlink == 0 && !node.is_unnamed {
            return Err(FsError::NotFound);
        }
        let now = self.now;
        let node = self.node(ino);
        node.is_unnamed = false;
        node.holders.clear();
        node.base.ctime = now;
        self.node(parent).entries.insert(name.to_vec(), ino);
        self.touch(parent);
        Ok(MutationReply::Inode(self.attributes(ino)))
    }

    fn unlink(&mut self, parent: Ino, name: &[u8], is_rmdir: bool, holders: &[SessionId]) -> Answer {
        let ino = *self.directory(parent)?.entries.get(name).ok_or(FsError::NotFound)?;
        match (self.nodes[&ino].base.kind == FileKind::Directory, is_rmdir) {
            (true, false) => return Err(FsError::IsDirectory),
            (false, true) => return Err(FsError::NotDirectory),
            (true, true) if !self.nodes[&ino].entries.is_empty() => return Err(FsError::NotEmpty),
            _ => {}
        }
        self.node(parent).entries.remove(name);
        self.touch(parent);
        Ok(MutationReply::Removed(self.lost_name(ino, holders)))
    }

    fn lost_name(&mut self, ino: Ino, holders: &[SessionId]) -> Attributes {
        self.node(ino).base.ctime = self.now;
        let attributes = self.attributes(ino);
        if attributes.nlink == 0 {
            self.node(ino).holders.extend(holders);
            if holders.is_empty() {
                self.nodes.remove(&ino);
            }
        }
        attributes
    }

    fn rename(&mut self, from: (Ino, &[u8]), to: (Ino, &[u8]), mode: RenameMode, holders: &[SessionId]) -> Answer {
        self.directory(from.0)?;
        self.directory(to.0)?;
        let source = *self.nodes[&from.0].entries.get(from.1).ok_or(FsError::NotFound)?;
        let target = self.nodes[&to.0].entries.get(to.1).copied();
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(FsError::Exists),
            (RenameMode::Exchange, None) => return Err(FsError::NotFound),
            (_, Some(target)) if target == source => return Ok(MutationReply::Done),
            _ => {}
        }
        let is_directory = |ino: Ino| self.kind(ino) == Some(FileKind::Directory);
        if self.way_up(to.0).contains(&source) {
            return Err(FsError::Invalid);
        }
        if let Some(target) = target {
            match (mode, is_directory(source), is_directory(target)) {
                (RenameMode::Exchange, _, _) if self.way_up(from.0).contains(&target) => return Err(FsError::Invalid),
                (RenameMode::Exchange, _, _) => {}
                (_, true, false) => return Err(FsError::NotDirectory),
                (_, false, true) => return Err(FsError::IsDirectory),
                (_, true, true) if !self.nodes[&target].entries.is_empty() => return Err(FsError::NotEmpty),
                _ => {}
            }
        }
        self.node(from.0).entries.remove(from.1);
        self.node(to.0).entries.insert(to.1.to_vec(), source);
        let mut moved = vec![(source, to.0)];
        if mode == RenameMode::Exchange {
            self.node(from.0).entries.insert(from.1.to_vec(), target.unwrap());
            moved.push((target.unwrap(), from.0));
        }
        self.touch(from.0);
        self.touch(to.0);
        for (ino, parent) in moved {
            let now = self.now;
            let node = self.node(ino);
            node.base.ctime = now;
            node.parent = parent;
        }
        if let Some(target) = target.filter(|_| mode != RenameMode::Exchange) {
            self.lost_name(target, holders);
        }
        Ok(MutationReply::Done)
    }

    /// The directory and all above it.
    fn way_up(&self, from: Ino) -> BTreeSet<Ino> {
        let mut way = BTreeSet::new();
        let mut at = from;
        while way.insert(at) {
            at = self.nodes[&at].parent;
        }
        way
    }

    fn set_attributes(&mut self, ino: Ino, change: &AttributeChange) -> Answer {
        let now = self.now;
        if let Some(size) = change.size {
            self.content(ino)?.resize(size as usize, None);
            self.node(ino).base.mtime = now;
        }
        let base = &mut self.nodes.get_mut(&ino).ok_or(FsError::Stale)?.base;
        let moment = |time: TimeChange| match time {
            TimeChange::Now => now,
            TimeChange::At(at) => at,
        };
        base.mode = change.mode.unwrap_or(base.mode);
        base.uid = change.uid.unwrap_or(base.uid);
        base.gid = change.gid.unwrap_or(base.gid);
        base.atime = change.atime.map_or(base.atime, moment);
        base.mtime = change.mtime.map_or(base.mtime, moment);
        base.ctime = change.ctime.unwrap_or(now);
        Ok(MutationReply::Inode(self.attributes(ino)))
    }

    fn commit(&mut self, file: &FileCommit) -> Result<Attributes, FsError> {
        let now = self.now;
        let content = self.content(file.ino)?;
        let end = file.extents.iter().map(|extent| extent.file_end()).max().unwrap_or(0).max(file.size_at_least) as usize;
        if content.len() < end {
            content.resize(end, None);
        }
        for extent in &file.extents {
            for byte in 0..extent.bytes {
                content[extent.file_offset as usize + byte as usize] = Some((extent.chunk, extent.chunk_offset + byte));
            }
        }
        let base = &mut self.node(file.ino).base;
        (base.mtime, base.ctime) = (file.mtime, now);
        Ok(self.attributes(file.ino))
    }

    /// Byte by byte: what is where the compactor found it is elsewhere from now on.
    fn compact(&mut self, files: &[FileCompaction]) -> MutationReply {
        let place = |extents: &[Extent], at: u64| {
            let found = extents.iter().find(|extent| extent.file_range().contains(&at));
            found.map(|extent| (extent.chunk, extent.chunk_offset + (at - extent.file_offset) as u32))
        };
        let (mut bytes, mut all) = (0, 0);
        for file in files {
            all += file.old.iter().map(|extent| u64::from(extent.bytes)).sum::<u64>();
            let Ok(content) = self.content(file.ino) else { continue };
            for (at, cell) in (0..).zip(content) {
                if let Some(new) = place(&file.new, at)
                    && cell.is_some()
                    && *cell == place(&file.old, at)
                {
                    *cell = Some(new);
                    bytes += 1;
                }
            }
        }
        MutationReply::Compacted { bytes, stale_bytes: all - bytes }
    }

    fn copy(&mut self, from: Ino, from_offset: u64, to: Ino, to_offset: u64, bytes: u64) -> Answer {
        let source = self.content(from)?.clone();
        self.content(to)?;
        let bytes = bytes.min((source.len() as u64).saturating_sub(from_offset));
        if bytes > 0 {
            if from == to && from_offset < to_offset + bytes && to_offset < from_offset + bytes {
                return Err(FsError::Invalid);
            }
            let pool = |ino: Ino| self.nodes[&ino].base.pool.unwrap_or(DEFAULT_POOL);
            if pool(from) != pool(to) {
                return Err(FsError::NotSupported);
            }
            let (from_offset, to_offset, count) = (from_offset as usize, to_offset as usize, bytes as usize);
            let content = self.content(to)?;
            if content.len() < to_offset + count {
                content.resize(to_offset + count, None);
            }
            content[to_offset..to_offset + count].copy_from_slice(&source[from_offset..from_offset + count]);
            self.touch(to);
        }
        Ok(MutationReply::Copied { bytes, to: self.attributes(to) })
    }
}

impl Node {
    fn new(base: Attributes, parent: Ino) -> Self {
        Self {
            base: Attributes { version: 0, ..base },
            entries: BTreeMap::new(),
            parent,
            content: Vec::new(),
            target: Vec::new(),
            xattrs: BTreeMap::new(),
            holders: BTreeSet::new(),
            is_unnamed: false,
        }
    }
}

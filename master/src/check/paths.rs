//! The names of inodes, for people: a file does not know what names it has, so they are looked for in the whole table of entries.

use super::walk::{Lookup, Walk};
use crate::check::tree::name_in;
use crate::keys::{self, Record};
use crate::state::record::{Dentry, Detail, ExtentRecord, Inode, fetch};
use crate::store::tables::{Reader, StoreError, Table};
use cairn_common::ids::{ChunkId, Ino};
use std::collections::{BTreeMap, BTreeSet};

/// Longest path that is told; of a longer one the end.
const PATH_BYTES_MAX: usize = 4096;
/// Files of a chunk that are told.
const FILES_PER_CHUNK: usize = 3;

/// Looks for the paths of some inodes. Memory grows with their number alone.
pub struct Paths {
    walk: Walk,
    wanted: BTreeSet<Ino>,
    /// A name of each inode found so far, also of directories above.
    names: BTreeMap<Ino, (Ino, Vec<u8>)>,
}

impl Paths {
    pub fn new(wanted: impl IntoIterator<Item = Ino>) -> Self {
        Self { walk: Walk::new(Table::Dentries, &[]), wanted: wanted.into_iter().collect(), names: BTreeMap::new() }
    }

    /// Reads about `limit` more rows. Whether there is more to do.
    pub fn step(&mut self, reader: &dyn Reader, limit: usize) -> Result<bool, StoreError> {
        if self.wanted.is_empty() {
            return Ok(false);
        }
        let Self { walk, wanted, names } = self;
        let rows = walk.step(reader, limit, &mut |key, value| {
            if let (Ok((parent, name)), Ok(dentry)) = (keys::parse_dentry(key), Dentry::decode(value))
                && wanted.remove(&dentry.ino)
            {
                names.insert(dentry.ino, (parent, name.to_vec()));
            }
            Ok(())
        })?;
        Ok(rows == limit && !self.wanted.is_empty())
    }

    /// The path from the root; `None` if no name leads to the inode. After the last step.
    pub fn path(&mut self, reader: &dyn Reader, ino: Ino) -> Result<Option<Vec<u8>>, StoreError> {
        let (mut parts, mut bytes) = (Vec::new(), 0);
        let mut at = ino;
        while at != Ino::ROOT && bytes < PATH_BYTES_MAX {
            let Some((parent, name)) = self.name(reader, at)? else { return Ok(None) };
            bytes += name.len() + 1;
            parts.push(name);
            at = parent;
        }
        if parts.is_empty() {
            return Ok(Some(b"/".to_vec()));
        }
        let mut path = if at == Ino::ROOT { Vec::new() } else { b"...".to_vec() };
        parts.iter().rev().for_each(|name| path.extend([b"/", name.as_slice()].concat()));
        Ok(Some(path))
    }

    fn name(&mut self, reader: &dyn Reader, ino: Ino) -> Result<Option<(Ino, Vec<u8>)>, StoreError> {
        if let Some(known) = self.names.get(&ino) {
            return Ok(Some(known.clone()));
        }
        let inode = Lookup::of(fetch::<Inode>(reader, Table::Inodes, &keys::inode(ino)))?.found();
        let Some(Detail::Directory { parent }) = inode.map(|inode| inode.detail) else { return Ok(None) };
        let Some(name) = name_in(reader, parent, ino)? else { return Ok(None) };
        self.names.insert(ino, (parent, name.clone()));
        Ok(Some((parent, name)))
    }
}

/// Looks for files that have bytes in some chunks.
pub struct Users {
    walk: Walk,
    pub files: BTreeMap<ChunkId, BTreeSet<Ino>>,
}

impl Users {
    pub fn new(chunks: impl IntoIterator<Item = ChunkId>) -> Self {
        let files = chunks.into_iter().map(|chunk| (chunk, BTreeSet::new())).collect();
        Self { walk: Walk::new(Table::Extents, &[]), files }
    }

    /// Reads about `limit` more rows. Whether there is more to do.
    pub fn step(&mut self, reader: &dyn Reader, limit: usize) -> Result<bool, StoreError> {
        if self.files.is_empty() {
            return Ok(false);
        }
        let Self { walk, files } = self;
        let rows = walk.step(reader, limit, &mut |key, value| {
            if let (Ok((ino, _)), Ok(extent)) = (keys::parse_extent(key), ExtentRecord::decode(value))
                && let Some(users) = files.get_mut(&extent.chunk)
                && users.len() < FILES_PER_CHUNK
            {
                users.insert(ino);
            }
            Ok(())
        })?;
        Ok(rows == limit)
    }
}

//! From each directory that was not removed the way up leads to the root. A directory whose parent is missing is found by its names;
//! here are found those that are inside each other.
//!
//! The way is followed with two marks and no memory of it (Brent). What is known to lead to the root is remembered up to a limit, so
//! that most ways are one step long.

use super::problem::Problem;
use super::walk::{Lookup, Walk};
use crate::keys::{self, Record};
use crate::state::record::{Dentry, Detail, Inode, fetch};
use crate::store::tables::{Reader, StoreError, Table};
use cairn_common::collections::FastSet;
use cairn_common::ids::Ino;
use std::ops::ControlFlow;

/// Directories that are remembered.
const CONNECTED_MAX: usize = if cfg!(test) { 3 } else { 1 << 20 };

/// See the module.
pub struct Tree {
    walk: Walk,
    connected: FastSet<Ino>,
}

/// Where a way up ends.
enum End {
    Root,
    /// The parent of something is missing, or no directory.
    Nowhere,
    /// This one is on a ring.
    Ring(Ino),
}

impl Tree {
    pub fn new() -> Self {
        Self { walk: Walk::new(Table::Inodes, &[]), connected: FastSet::default() }
    }

    pub fn step(&mut self, reader: &dyn Reader, limit: usize, problems: &mut Vec<Problem>) -> Result<(usize, bool), StoreError> {
        let mut directories = Vec::new();
        let rows = self.walk.step(reader, limit, &mut |key, value| {
            // What can't be read has been told.
            if let (Ok(ino), Ok(inode)) = (keys::parse_inode(key), Inode::decode(value))
                && inode.is_directory()
                && inode.nlink > 0
            {
                directories.push(ino);
            }
            Ok(())
        })?;
        for ino in directories {
            self.follow(reader, ino, problems)?;
        }
        Ok((rows, rows == limit))
    }

    fn follow(&mut self, reader: &dyn Reader, start: Ino, problems: &mut Vec<Problem>) -> Result<(), StoreError> {
        match self.climb(reader, start)? {
            End::Root => {
                if self.connected.len() >= CONNECTED_MAX {
                    self.connected.clear();
                }
                self.connected.insert(start);
            }
            End::Ring(member) if first_of_ring(reader, member)? == start => {
                problems.push(Problem::Loop { ino: start, entry: entry_of(reader, start)? });
            }
            End::Ring(_) | End::Nowhere => {}
        }
        Ok(())
    }

    fn climb(&self, reader: &dyn Reader, start: Ino) -> Result<End, StoreError> {
        let (mut at, mut mark) = (start, start);
        let (mut steps, mut power) = (0u64, 1u64);
        loop {
            if at == Ino::ROOT || self.connected.contains(&at) {
                return Ok(End::Root);
            }
            let Some(parent) = parent_of(reader, at)? else { return Ok(End::Nowhere) };
            at = parent;
            if at == mark {
                return Ok(End::Ring(at));
            }
            steps += 1;
            if steps == power {
                (mark, power, steps) = (at, power * 2, 0);
            }
        }
    }
}

fn parent_of(reader: &dyn Reader, ino: Ino) -> Result<Option<Ino>, StoreError> {
    let inode = Lookup::of(fetch::<Inode>(reader, Table::Inodes, &keys::inode(ino)))?.found();
    Ok(inode.and_then(|inode| match inode.detail {
        Detail::Directory { parent } => Some(parent),
        _ => None,
    }))
}

/// The lowest number on a ring, so that each ring is told once.
fn first_of_ring(reader: &dyn Reader, member: Ino) -> Result<Ino, StoreError> {
    let (mut first, mut at) = (member, member);
    while let Some(parent) = parent_of(reader, at)?.filter(|parent| *parent != member) {
        at = parent;
        first = first.min(at);
    }
    Ok(first)
}

/// The name by which a directory's parent names it.
fn entry_of(reader: &dyn Reader, ino: Ino) -> Result<Option<(Ino, Vec<u8>)>, StoreError> {
    let Some(parent) = parent_of(reader, ino)? else { return Ok(None) };
    Ok(name_in(reader, parent, ino)?.map(|name| (parent, name)))
}

/// A name that a directory has for an inode.
pub fn name_in(reader: &dyn Reader, directory: Ino, ino: Ino) -> Result<Option<Vec<u8>>, StoreError> {
    let prefix = keys::dentries(directory);
    let mut found = None;
    reader.scan(Table::Dentries, &prefix, keys::after_prefix(&prefix).as_deref(), false, &mut |key, value| {
        let is_it = Dentry::decode(value).is_ok_and(|dentry| dentry.ino == ino);
        if !is_it {
            return ControlFlow::Continue(());
        }
        found = keys::parse_dentry(key).ok().map(|(_, name)| name.to_vec());
        ControlFlow::Break(())
    })?;
    Ok(found)
}

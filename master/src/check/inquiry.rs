//! The second reading: of the inodes and chunks in buckets that are not in balance it is counted exactly what is wrong.

use super::balance::Suspects;
use super::compaction;
use super::problem::{Problem, Uses};
use super::tree::name_in;
use super::walk::{Lookup, Walk};
use crate::keys::{self, Record};
use crate::state::orphan;
use crate::state::record::{ChunkRecord, Dentry, Detail, ExtentRecord, IndexEntry, Inode, fetch};
use crate::store::tables::{Reader, StoreError, Table};
use cairn_common::attributes::FileKind;
use cairn_common::ids::{ChunkId, Ino};
use cairn_common::limits::NAME_BYTES_MAX;
use std::collections::BTreeMap;

/// What an inode says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Facts {
    kind: FileKind,
    nlink: u64,
    size: u64,
    allocated: u64,
    xattr_bytes: u64,
    /// Of a directory.
    parent: Option<Ino>,
}

impl Facts {
    fn of(inode: &Inode) -> Self {
        let parent = match inode.detail {
            Detail::Directory { parent } => Some(parent),
            _ => None,
        };
        Self {
            kind: inode.kind(),
            nlink: inode.nlink.into(),
            size: inode.size,
            allocated: inode.allocated,
            xattr_bytes: inode.xattr_list_bytes.into(),
            parent,
        }
    }

    fn is_directory(&self) -> bool {
        self.kind == FileKind::Directory
    }
}

/// What other rows say of an inode.
struct Subject {
    facts: Lookup<Facts>,
    names: u32,
    /// Of a directory: its parent names it.
    is_at_home: bool,
    entries: u64,
    subdirectories: u64,
    content_bytes: u64,
    content_end: u64,
    xattr_bytes: u64,
    /// Names of an inode that does not exist.
    dangling: Vec<(Ino, Vec<u8>)>,
}

impl Subject {
    fn new(facts: Lookup<Facts>) -> Self {
        Self {
            facts,
            names: 0,
            is_at_home: false,
            entries: 0,
            subdirectories: 0,
            content_bytes: 0,
            content_end: 0,
            xattr_bytes: 0,
            dangling: Vec::new(),
        }
    }
}

/// The tables that are read, in this order: inodes first, since the others rest on them.
const TABLES: [Table; 5] = [Table::Inodes, Table::Dentries, Table::DirectoryIndex, Table::Extents, Table::Xattrs];

/// Of inodes: one portion of suspects after the other.
pub struct InodeInquiry {
    portions: std::vec::IntoIter<Suspects>,
    /// The portion under way, and which table it is at.
    present: Option<(Suspects, usize, Walk)>,
    subjects: BTreeMap<Ino, Subject>,
}

impl InodeInquiry {
    pub fn new(portions: Vec<Suspects>) -> Self {
        Self { portions: portions.into_iter(), present: None, subjects: BTreeMap::new() }
    }

    pub fn step(&mut self, reader: &dyn Reader, limit: usize, problems: &mut Vec<Problem>) -> Result<(usize, bool), StoreError> {
        let begin = |suspects| (suspects, 0, Walk::new(TABLES[0], &[]));
        let Some((suspects, number, mut walk)) = self.present.take().or_else(|| self.portions.next().map(begin)) else {
            return Ok((0, false));
        };
        let rows = walk.step(reader, limit, &mut |key, value| match self.row(reader, &suspects, TABLES[number], key, value, problems) {
            // The first reading has told of it.
            Err(StoreError::Corrupt(_)) => Ok(()),
            other => other,
        })?;
        self.present = if rows == limit {
            Some((suspects, number, walk))
        } else if let Some(next) = TABLES.get(number + 1) {
            Some((suspects, number + 1, Walk::new(*next, &[])))
        } else {
            self.conclude(reader, problems)?;
            None
        };
        Ok((rows, self.present.is_some() || self.portions.len() > 0))
    }

    fn row(
        &mut self,
        reader: &dyn Reader,
        suspects: &Suspects,
        table: Table,
        key: &[u8],
        value: &[u8],
        problems: &mut Vec<Problem>,
    ) -> Result<(), StoreError> {
        match table {
            Table::Inodes => {
                let ino = keys::parse_inode(key)?;
                if suspects.contain(ino) {
                    let facts = Inode::decode(value).map_or(Lookup::Unreadable, |inode| Lookup::Found(Facts::of(&inode)));
                    self.subjects.insert(ino, Subject::new(facts));
                }
            }
            Table::Dentries => {
                let (parent, name) = keys::parse_dentry(key)?;
                let dentry = Dentry::decode(value)?;
                if suspects.contain(dentry.ino) {
                    self.named(reader, parent, name, &dentry, problems)?;
                }
                if suspects.contain(parent) {
                    self.entry(reader, parent, name, &dentry, problems)?;
                }
            }
            Table::DirectoryIndex => {
                let (parent, cookie) = keys::parse_directory_index(key)?;
                if suspects.contain(parent) {
                    let name = IndexEntry::decode(value)?.name;
                    let is_possible = name.len() <= NAME_BYTES_MAX;
                    let dentry: Option<Dentry> =
                        if is_possible { fetch(reader, Table::Dentries, &keys::dentry(parent, &name))? } else { None };
                    if dentry.is_none_or(|dentry| dentry.cookie != cookie) {
                        problems.push(Problem::ListedOnly { parent, cookie, name });
                    }
                }
            }
            Table::Extents => {
                let (ino, end) = keys::parse_extent(key)?;
                if suspects.contain(ino) {
                    let subject = self.subject(ino);
                    subject.content_bytes += u64::from(ExtentRecord::decode(value)?.bytes);
                    subject.content_end = end;
                }
            }
            _ => {
                let (ino, name) = keys::parse_xattr(key)?;
                if suspects.contain(ino) {
                    self.subject(ino).xattr_bytes += name.len() as u64 + 1;
                }
            }
        }
        Ok(())
    }

    /// A suspect. Inodes were read first: one that is not here now does not exist.
    fn subject(&mut self, ino: Ino) -> &mut Subject {
        self.subjects.entry(ino).or_insert_with(|| Subject::new(Lookup::Missing))
    }

    /// An entry names a suspect.
    fn named(
        &mut self,
        reader: &dyn Reader,
        parent: Ino,
        name: &[u8],
        dentry: &Dentry,
        problems: &mut Vec<Problem>,
    ) -> Result<(), StoreError> {
        let ino = dentry.ino;
        let subject = self.subject(ino);
        subject.names += 1;
        let facts = match &subject.facts {
            Lookup::Found(facts) => *facts,
            Lookup::Missing => {
                if subject.dangling.len() < super::PROBLEMS_MAX {
                    subject.dangling.push((parent, name.to_vec()));
                }
                return Ok(());
            }
            Lookup::Unreadable => return Ok(()),
        };
        let name = name.to_vec();
        if facts.kind != dentry.kind {
            problems.push(Problem::EntryKind { parent, name: name.clone(), ino, said: dentry.kind, is: facts.kind });
        }
        match facts.parent {
            Some(believed) if believed != parent => {
                let is_extra = name_in(reader, believed, ino)?.is_some();
                problems.push(Problem::EntryParent { parent, name, ino, believed, is_extra });
            }
            Some(_) if subject.is_at_home => problems.push(Problem::SecondName { parent, name, ino }),
            Some(_) => subject.is_at_home = true,
            None => {}
        }
        Ok(())
    }

    /// A suspect has an entry.
    fn entry(
        &mut self,
        reader: &dyn Reader,
        parent: Ino,
        name: &[u8],
        dentry: &Dentry,
        problems: &mut Vec<Problem>,
    ) -> Result<(), StoreError> {
        let kind = match Lookup::of(fetch::<Inode>(reader, Table::Inodes, &keys::inode(dentry.ino)))? {
            Lookup::Found(inode) => inode.kind(),
            Lookup::Missing | Lookup::Unreadable => dentry.kind,
        };
        let subject = self.subject(parent);
        subject.entries += 1;
        subject.subdirectories += u64::from(kind == FileKind::Directory);
        let is_directory = match &subject.facts {
            Lookup::Found(facts) => facts.is_directory(),
            Lookup::Missing => false,
            Lookup::Unreadable => return Ok(()),
        };
        if !is_directory {
            problems.push(Problem::EntryNowhere { parent, name: name.to_vec(), ino: dentry.ino });
            return Ok(());
        }
        let twin = IndexEntry { name: name.to_vec(), ino: dentry.ino, kind: dentry.kind };
        let place = keys::directory_index(parent, dentry.cookie);
        if Lookup::of(fetch::<IndexEntry>(reader, Table::DirectoryIndex, &place))? != Lookup::Found(twin) {
            problems.push(Problem::EntryUnlisted { parent, name: name.to_vec() });
        }
        Ok(())
    }

    /// Compares what was counted with what the inodes say.
    fn conclude(&mut self, reader: &dyn Reader, problems: &mut Vec<Problem>) -> Result<(), StoreError> {
        for (ino, subject) in std::mem::take(&mut self.subjects) {
            match subject.facts {
                Lookup::Found(facts) => judge(reader, ino, &facts, &subject, problems)?,
                Lookup::Missing => judge_missing(reader, ino, subject, problems)?,
                Lookup::Unreadable => {}
            }
        }
        Ok(())
    }
}

fn judge(reader: &dyn Reader, ino: Ino, facts: &Facts, subject: &Subject, problems: &mut Vec<Problem>) -> Result<(), StoreError> {
    let Subject { entries, subdirectories, content_bytes, xattr_bytes, .. } = *subject;
    let names = u64::from(subject.names) + u64::from(ino == Ino::ROOT);
    let with_a_name = if facts.is_directory() { 2 + subdirectories } else { names.max(1) };
    let counted = if names == 0 { 0 } else { with_a_name };
    let is_held = names > 0 || !orphan::holders(reader, ino, 1)?.is_empty();
    let stored = facts.nlink;
    match () {
        // An empty one that was removed may go; what has entries, or was not removed, has lost its name.
        () if !is_held && stored == 0 && entries == 0 => problems.push(Problem::Leftover { ino }),
        () if !is_held || (names == 0 && entries > 0) => problems.push(Problem::Unreachable { ino, adopted: with_a_name, stored }),
        () if counted != stored => problems.push(Problem::Links { ino, counted, stored }),
        () => {}
    }
    if facts.is_directory() && entries != facts.size {
        problems.push(Problem::Entries { ino, counted: entries, stored: facts.size });
    }
    if content_bytes != facts.allocated {
        problems.push(Problem::Allocated { ino, counted: content_bytes, stored: facts.allocated });
    }
    if xattr_bytes != facts.xattr_bytes {
        problems.push(Problem::XattrBytes { ino, counted: xattr_bytes, stored: facts.xattr_bytes });
    }
    Ok(())
}

fn judge_missing(reader: &dyn Reader, ino: Ino, subject: Subject, problems: &mut Vec<Problem>) -> Result<(), StoreError> {
    let is_being_removed = reader.get(Table::Meta, &keys::shrinking(ino))?.is_some();
    if subject.content_bytes > 0 && !is_being_removed {
        let Subject { content_bytes: bytes, content_end: end, xattr_bytes, names, .. } = subject;
        problems.push(Problem::StrayExtents { ino, bytes, end, xattr_bytes, names });
        return Ok(());
    }
    problems.extend(subject.dangling.into_iter().map(|(parent, name)| Problem::EntryOfNothing { parent, name, ino }));
    if subject.xattr_bytes > 0 {
        problems.push(Problem::StrayXattrs { ino });
    }
    Ok(())
}

/// What is counted of a chunk, and its record.
#[derive(Default)]
struct ChunkSubject {
    counted: Uses,
    record: Option<ChunkRecord>,
}

/// Of chunks: one portion of suspects after the other.
pub struct ChunkInquiry {
    portions: std::vec::IntoIter<Suspects>,
    present: Option<(Suspects, Walk)>,
    subjects: BTreeMap<ChunkId, ChunkSubject>,
}

impl ChunkInquiry {
    pub fn new(portions: Vec<Suspects>) -> Self {
        Self { portions: portions.into_iter(), present: None, subjects: BTreeMap::new() }
    }

    pub fn step(&mut self, reader: &dyn Reader, limit: usize, problems: &mut Vec<Problem>) -> Result<(usize, bool), StoreError> {
        let begin = |suspects| (suspects, Walk::new(Table::Chunks, &[]));
        let Some((suspects, mut walk)) = self.present.take().or_else(|| self.portions.next().map(begin)) else { return Ok((0, false)) };
        let table = walk.table();
        let rows = walk.step(reader, limit, &mut |key, value| match self.row(&suspects, table, key, value) {
            // The first reading has told of it.
            Err(StoreError::Corrupt(_)) => Ok(()),
            other => other,
        })?;
        self.present = if rows == limit {
            Some((suspects, walk))
        } else if table == Table::Chunks {
            Some((suspects, Walk::new(Table::Extents, &[])))
        } else {
            self.conclude(reader, problems)?;
            None
        };
        Ok((rows, self.present.is_some() || self.portions.len() > 0))
    }

    fn row(&mut self, suspects: &Suspects, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        if table == Table::Chunks {
            let chunk = keys::parse_chunk(key)?;
            if suspects.contain(chunk) {
                self.subjects.entry(chunk).or_default().record = Some(ChunkRecord::decode(value)?);
            }
            return Ok(());
        }
        let extent = ExtentRecord::decode(value)?;
        // Chunks were read first. Of one without a record the first reading has told.
        if let Some(subject) = self.subjects.get_mut(&extent.chunk) {
            subject.counted.references += 1;
            subject.counted.live_bytes += u64::from(extent.bytes);
        }
        Ok(())
    }

    fn conclude(&mut self, reader: &dyn Reader, problems: &mut Vec<Problem>) -> Result<(), StoreError> {
        for (chunk, ChunkSubject { counted, record }) in std::mem::take(&mut self.subjects) {
            let Some(record) = record else { continue };
            let stored = Uses { references: record.references, live_bytes: record.live_bytes };
            let is_queued = match record.died {
                Some(died) => reader.get(Table::DeadChunks, &keys::dead_chunk(died, chunk))?.is_some(),
                None => false,
            };
            if stored != counted {
                problems.push(Problem::ChunkUses { chunk, counted, stored });
            } else if record.died.is_some() != (record.references == 0) || record.died.is_some() != is_queued {
                problems.push(Problem::HalfDead { chunk });
            } else if compaction::is_half_sparse(reader, chunk, &record)? {
                problems.push(Problem::HalfSparse { chunk });
            }
        }
        Ok(())
    }
}

//! Ordered tables of bytes, as the state machine sees them: a [`Reader`] to look things up, and a [`Batch`] that stages the
//! changes of one command on top of it.
//!
//! - A row is (table, key) -> value; keys order as bytes do.
//! - A batch reads its own changes. Dropping it discards them, so that a failed command leaves nothing behind.
//! - Layers stack by [`Overlay`]: a batch over the memtable over the frozen memtable over redb.

use std::collections::BTreeMap;
use std::io;
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::Arc;

macro_rules! tables {
    ($($table:ident = $code:literal, $name:literal;)*) => {
        /// A table. The codes and names are part of the format on disk.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Table {
            $($table = $code,)*
        }

        impl Table {
            /// All tables, in order of code; the code is the position.
            pub const ALL: &'static [Table] = &[$(Table::$table),*];

            /// The name in redb and in dumps.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Table::$table => $name,)*
                }
            }
        }
    };
}

tables! {
    Inodes = 0, "inodes";
    Dentries = 1, "dentries";
    DirectoryIndex = 2, "directory_index";
    Extents = 3, "extents";
    Chunks = 4, "chunks";
    DeadChunks = 5, "dead_chunks";
    Xattrs = 6, "xattrs";
    Sessions = 7, "sessions";
    Results = 8, "results";
    Orphans = 9, "orphans";
    Tokens = 10, "tokens";
    Servers = 11, "servers";
    Targets = 12, "targets";
    Pools = 13, "pools";
    Meta = 14, "meta";
}

impl Table {
    pub const COUNT: usize = Self::ALL.len();

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|table| table.name() == name)
    }

    const fn at(self) -> usize {
        self as usize
    }
}

/// The tables can't be read or written any more: the disk failed, or what is on it makes no sense. The master must stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("the master's disk failed: {0}")]
    Disk(String),
    #[error("the master's data is damaged: {0}")]
    Corrupt(String),
}

/// An I/O error with its object.
pub(crate) fn disk_error(verb: &str, path: &Path, error: &io::Error) -> StoreError {
    StoreError::Disk(format!("cannot {verb} {}: {error}", path.display()))
}

/// A value; cheap to clone.
pub type Value = Arc<[u8]>;

/// What a scan calls for each row, until it breaks.
pub type Visit<'v> = &'v mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// Reads rows.
pub trait Reader {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Value>, StoreError>;

    /// Visits the rows with `from <= key`, and `key < until` if there is an `until`, in order of key; from the last to the
    /// first if `reverse`. Visits nothing if the range is empty or upside down.
    fn scan(&self, table: Table, from: &[u8], until: Option<&[u8]>, reverse: bool, visit: Visit<'_>) -> Result<(), StoreError>;
}

/// Rows that were put (`Some`) or deleted (`None`), of one table.
pub type TableChanges = BTreeMap<Box<[u8]>, Option<Value>>;

/// Rows that were put or deleted, of all tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    tables: [TableChanges; Table::COUNT],
}

impl Changes {
    /// The last change of a row, if there was one.
    pub fn get(&self, table: Table, key: &[u8]) -> Option<&Option<Value>> {
        self.tables[table.at()].get(key)
    }

    /// Notes a change and returns what it replaces, if the row was changed before.
    pub fn set(&mut self, table: Table, key: Box<[u8]>, value: Option<Value>) -> Option<Option<Value>> {
        self.tables[table.at()].insert(key, value)
    }

    pub fn table(&self, table: Table) -> &TableChanges {
        &self.tables[table.at()]
    }

    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(BTreeMap::is_empty)
    }

    pub fn rows(&self) -> usize {
        self.tables.iter().map(BTreeMap::len).sum()
    }
}

impl IntoIterator for Changes {
    type Item = (Table, Box<[u8]>, Option<Value>);
    type IntoIter = Box<dyn Iterator<Item = Self::Item>>;

    /// In order of table and key.
    fn into_iter(self) -> Self::IntoIter {
        let tables = Table::ALL.iter().copied().zip(self.tables);
        Box::new(tables.flat_map(|(table, rows)| rows.into_iter().map(move |(key, value)| (table, key, value))))
    }
}

/// Changes on top of other tables.
#[derive(Clone, Copy)]
pub struct Overlay<'a> {
    pub changes: &'a Changes,
    pub base: &'a dyn Reader,
}

impl Reader for Overlay<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Value>, StoreError> {
        match self.changes.get(table, key) {
            Some(changed) => Ok(changed.clone()),
            None => self.base.get(table, key),
        }
    }

    fn scan(&self, table: Table, from: &[u8], until: Option<&[u8]>, reverse: bool, visit: Visit<'_>) -> Result<(), StoreError> {
        let Some(range) = key_range(from, until) else { return Ok(()) };
        let changed = self.changes.table(table).range::<[u8], _>(range);
        if reverse {
            let merge = Merge { changed: changed.rev().peekable(), comes_first: |changed: &[u8], base: &[u8]| changed > base };
            merge.run(|visit| self.base.scan(table, from, until, reverse, visit), visit)
        } else {
            let merge = Merge { changed: changed.peekable(), comes_first: |changed: &[u8], base: &[u8]| changed < base };
            merge.run(|visit| self.base.scan(table, from, until, reverse, visit), visit)
        }
    }
}

pub(super) type KeyRange<'k> = (Bound<&'k [u8]>, Bound<&'k [u8]>);

/// The bounds for a `BTreeMap`, which panics at ranges that are upside down; `None` for those.
pub(super) fn key_range<'k>(from: &'k [u8], until: Option<&'k [u8]>) -> Option<KeyRange<'k>> {
    match until {
        Some(until) if from >= until => None,
        Some(until) => Some((Bound::Included(from), Bound::Excluded(until))),
        None => Some((Bound::Included(from), Bound::Unbounded)),
    }
}

/// Merges changed rows into a scan of the rows below them.
struct Merge<'a, I: Iterator<Item = (&'a Box<[u8]>, &'a Option<Value>)>, F: Fn(&[u8], &[u8]) -> bool> {
    changed: std::iter::Peekable<I>,
    /// Whether the first key (a changed one) is visited before the second.
    comes_first: F,
}

impl<'a, I: Iterator<Item = (&'a Box<[u8]>, &'a Option<Value>)>, F: Fn(&[u8], &[u8]) -> bool> Merge<'a, I, F> {
    fn run(mut self, scan_base: impl FnOnce(Visit<'_>) -> Result<(), StoreError>, visit: Visit<'_>) -> Result<(), StoreError> {
        let mut flow = ControlFlow::Continue(());
        scan_base(&mut |key, value| {
            flow = self.base_row(key, value, visit);
            flow
        })?;
        while flow.is_continue()
            && let Some((key, value)) = self.changed.next()
        {
            flow = value.as_ref().map_or(ControlFlow::Continue(()), |value| visit(key, value));
        }
        Ok(())
    }

    /// Visits the changed rows before a row of the base, and the row itself unless a change replaces it.
    fn base_row(&mut self, key: &[u8], value: &[u8], visit: Visit<'_>) -> ControlFlow<()> {
        while let Some((changed, row)) = self.changed.next_if(|(changed, _)| changed.as_ref() == key || (self.comes_first)(changed, key)) {
            if let Some(row) = row {
                visit(changed, row)?;
            }
            if changed.as_ref() == key {
                return ControlFlow::Continue(());
            }
        }
        visit(key, value)
    }
}

/// The staged changes of one command. See the module.
pub struct Batch<'a> {
    base: &'a dyn Reader,
    changes: Changes,
}

impl<'a> Batch<'a> {
    pub fn new(base: &'a dyn Reader) -> Self {
        Self { base, changes: Changes::default() }
    }

    pub fn put(&mut self, table: Table, key: &[u8], value: impl Into<Value>) {
        self.changes.set(table, key.into(), Some(value.into()));
    }

    /// Removes a row, if it is there.
    pub fn delete(&mut self, table: Table, key: &[u8]) {
        self.changes.set(table, key.into(), None);
    }

    /// What was staged, for the store (or a test) to keep.
    pub fn into_changes(self) -> Changes {
        self.changes
    }

    fn overlay(&self) -> Overlay<'_> {
        Overlay { changes: &self.changes, base: self.base }
    }
}

impl Reader for Batch<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Value>, StoreError> {
        self.overlay().get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], until: Option<&[u8]>, reverse: bool, visit: Visit<'_>) -> Result<(), StoreError> {
        self.overlay().scan(table, from, until, reverse, visit)
    }
}

/// Tables in memory alone: the bottom of a tower of layers in tests, and the empty base.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryTables {
    tables: [BTreeMap<Box<[u8]>, Value>; Table::COUNT],
}

impl MemoryTables {
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps what a batch staged.
    pub fn commit(&mut self, changes: Changes) {
        for (table, key, value) in changes {
            match value {
                Some(value) => self.tables[table.at()].insert(key, value),
                None => self.tables[table.at()].remove(&key),
            };
        }
    }
}

impl Reader for MemoryTables {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Value>, StoreError> {
        Ok(self.tables[table.at()].get(key).cloned())
    }

    fn scan(&self, table: Table, from: &[u8], until: Option<&[u8]>, reverse: bool, visit: Visit<'_>) -> Result<(), StoreError> {
        let Some(range) = key_range(from, until) else { return Ok(()) };
        let mut rows = self.tables[table.at()].range::<[u8], _>(range);
        let mut next = || if reverse { rows.next_back() } else { rows.next() };
        while let Some((key, value)) = next() {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Batch, Changes, MemoryTables, Overlay, Reader, Table};
    use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};
    use std::collections::BTreeMap;
    use std::ops::ControlFlow;

    type Model = BTreeMap<Vec<u8>, Vec<u8>>;
    type Edits = Vec<(Vec<u8>, Option<Vec<u8>>)>;

    fn keys() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(0..4u8, 0..4)
    }

    fn edits() -> impl Strategy<Value = Edits> {
        proptest::collection::vec((keys(), proptest::option::of(proptest::collection::vec(any::<u8>(), 0..3))), 0..30)
    }

    fn apply(edits: &Edits, model: &mut Model, base: &dyn Reader) -> Changes {
        let mut batch = Batch::new(base);
        for (key, value) in edits {
            match value {
                Some(value) => {
                    batch.put(Table::Xattrs, key, value.clone());
                    model.insert(key.clone(), value.clone());
                }
                None => {
                    batch.delete(Table::Xattrs, key);
                    model.remove(key);
                }
            }
        }
        batch.into_changes()
    }

    fn scan(reader: &dyn Reader, from: &[u8], until: Option<&[u8]>, reverse: bool, limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        let visit = &mut |key: &[u8], value: &[u8]| {
            rows.push((key.to_vec(), value.to_vec()));
            if rows.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        reader.scan(Table::Xattrs, from, until, reverse, visit).unwrap();
        rows
    }

    fn expected(model: &Model, from: &[u8], until: Option<&[u8]>, reverse: bool, limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut rows: Vec<_> = model
            .iter()
            .filter(|(key, _)| key.as_slice() >= from && until.is_none_or(|until| key.as_slice() < until))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if reverse {
            rows.reverse();
        }
        rows.truncate(limit);
        rows
    }

    proptest! {
        #[test]
        fn a_tower_of_layers_reads_like_one_map(
            layers in proptest::array::uniform4(edits()),
            from in keys(),
            until in proptest::option::of(keys()),
            reverse in any::<bool>(),
            limit in 1..20usize,
        ) {
            let mut model = Model::new();
            let mut bottom = MemoryTables::new();
            let changes = apply(&layers[0], &mut model, &bottom);
            bottom.commit(changes);
            let frozen = apply(&layers[1], &mut model, &bottom);
            let middle = Overlay { changes: &frozen, base: &bottom };
            let active = apply(&layers[2], &mut model, &middle);
            let top = Overlay { changes: &active, base: &middle };
            let staged = apply(&layers[3], &mut model, &top);
            let reader = Overlay { changes: &staged, base: &top };

            prop_assert_eq!(
                scan(&reader, &from, until.as_deref(), reverse, limit),
                expected(&model, &from, until.as_deref(), reverse, limit)
            );
            let found = reader.get(Table::Xattrs, &from).unwrap();
            prop_assert_eq!(found.as_deref(), model.get(&from).map(Vec::as_slice));
            prop_assert_eq!(reader.get(Table::Inodes, &from).unwrap(), None, "tables must not mix");

            // Committing layer by layer gives the same rows at the bottom.
            for changes in [frozen, active, staged] {
                bottom.commit(changes);
            }
            prop_assert_eq!(scan(&bottom, &[], None, false, usize::MAX), expected(&model, &[], None, false, usize::MAX));
        }
    }
}

//! What compaction goes by: the number of extents, windows that have many, chunks that are mostly dead, and the queues of both.

use super::problem::Problem;
use super::walk::Lookup;
use crate::keys;
use crate::state::record::{ChunkRecord, ExtentUsage, Rules, Window, WindowName, fetch};
use crate::state::window;
use crate::store::tables::{Reader, StoreError, Table};
use cairn_common::ids::{ChunkId, Ino};
use cairn_common::time::Timestamp;

/// What the tables have, as their extents go by.
pub struct Stock {
    /// Windows with fewer extents have no row.
    least: u32,
    stored: Option<ExtentUsage>,
    counted: ExtentUsage,
    /// The window of the last extent, and how many extents it has so far. Extents of a window are neighbours.
    window: Option<(WindowName, u32)>,
}

impl Stock {
    pub fn begin(reader: &dyn Reader) -> Result<Self, StoreError> {
        let stored = fetch(reader, Table::Meta, &keys::extent_usage())?;
        Ok(Self { least: Rules::of(reader)?.window_counted(), stored, counted: ExtentUsage::default(), window: None })
    }

    /// Whether windows are counted: not in a cluster from before compaction whose master has not taken stock yet.
    fn is_taken(&self) -> bool {
        self.stored.is_some()
    }

    /// There is an extent. It counts in its window even if no more than its key can be read.
    pub fn place(&mut self, reader: &dyn Reader, ino: Ino, end: u64, problems: &mut Vec<Problem>) -> Result<(), StoreError> {
        let name = window::name_of(ino, end);
        match &mut self.window {
            Some((present, extents)) if *present == name => *extents += 1,
            _ => {
                self.end_of_window(reader, problems)?;
                self.window = Some((name, 1));
            }
        }
        Ok(())
    }

    pub fn extent(&mut self, bytes: u32) {
        self.counted.extents += 1;
        self.counted.bytes += u64::from(bytes);
    }

    /// A window that should have a row has one. What the rows say is looked at when they are read.
    fn end_of_window(&mut self, reader: &dyn Reader, problems: &mut Vec<Problem>) -> Result<(), StoreError> {
        let Some((name, counted)) = self.window.take() else { return Ok(()) };
        if self.is_taken() && counted >= self.least && reader.get(Table::Meta, &keys::window(name))?.is_none() {
            problems.push(Problem::Window { name, counted, stored: None });
        }
        Ok(())
    }

    /// After the last extent.
    pub fn end(&mut self, reader: &dyn Reader, problems: &mut Vec<Problem>) -> Result<(), StoreError> {
        self.end_of_window(reader, problems)?;
        if self.stored != Some(self.counted) {
            problems.push(Problem::ExtentUsage { counted: self.counted, stored: self.stored });
        }
        Ok(())
    }

    /// A window has a row.
    pub fn window(&self, reader: &dyn Reader, name: WindowName, stored: &Window, problems: &mut Vec<Problem>) -> Result<(), StoreError> {
        if !self.is_taken() {
            return Ok(());
        }
        let counted = window::count(reader, name)?;
        if counted != stored.extents || counted < self.least {
            problems.push(Problem::Window { name, counted, stored: Some(stored.extents) });
            return Ok(());
        }
        let Some(due) = stored.due else { return Ok(()) };
        if reader.get(Table::Meta, &keys::due_window(due, name))?.is_none() {
            problems.push(Problem::WindowUnqueued { name });
        }
        Ok(())
    }
}

/// A window is in the queue.
pub fn due_window(reader: &dyn Reader, due: Timestamp, name: WindowName, problems: &mut Vec<Problem>) -> Result<(), StoreError> {
    let fits = match Lookup::of(fetch::<Window>(reader, Table::Meta, &keys::window(name)))? {
        Lookup::Found(window) => window.due == Some(due),
        Lookup::Missing => false,
        Lookup::Unreadable => true,
    };
    if !fits {
        problems.push(Problem::DueWindowRow { due, name });
    }
    Ok(())
}

/// A chunk is in the queue.
pub fn sparse_chunk(reader: &dyn Reader, due: Timestamp, chunk: ChunkId, problems: &mut Vec<Problem>) -> Result<(), StoreError> {
    let fits = match Lookup::of(fetch::<ChunkRecord>(reader, Table::Chunks, &keys::chunk(chunk)))? {
        Lookup::Found(record) => record.sparse == Some(due),
        Lookup::Missing => false,
        Lookup::Unreadable => true,
    };
    if !fits {
        problems.push(Problem::SparseRow { due, chunk });
    }
    Ok(())
}

/// Whether a chunk knows that it is mostly dead, and is queued for it.
pub fn is_half_sparse(reader: &dyn Reader, id: ChunkId, chunk: &ChunkRecord) -> Result<bool, StoreError> {
    let Some(due) = chunk.sparse else {
        // Before the master has taken stock, old chunks do not know it, and are not wrong.
        return Ok(chunk.is_sparse() && reader.get(Table::Meta, &keys::extent_usage())?.is_some());
    };
    Ok(!chunk.is_sparse() || reader.get(Table::Meta, &keys::sparse_chunk(due, id))?.is_none())
}

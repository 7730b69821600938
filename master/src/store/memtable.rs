//! Changes that are in the log but not yet in the tables on disk.

use super::database::Position;
use super::tables::{Changes, Table, Value};

/// What a row costs besides its bytes: its place in the tree, and two allocations.
const ROW_OVERHEAD_BYTES: usize = 96;

/// Changes, how many bytes of memory they take, and how far they go.
#[derive(Debug, Default)]
pub struct Memtable {
    changes: Changes,
    bytes: usize,
    pub position: Position,
}

impl Memtable {
    pub fn new(position: Position) -> Self {
        Self { position, ..Self::default() }
    }

    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// About how much memory the changes take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes in the changes of the command at `position`.
    pub fn absorb(&mut self, changes: Changes, position: Position) {
        debug_assert_eq!(position.applied, self.position.applied.next());
        for (table, key, value) in changes {
            self.set(table, key, value);
        }
        self.position = position;
    }

    fn set(&mut self, table: Table, key: Box<[u8]>, value: Option<Value>) {
        let value_bytes = |value: &Option<Value>| value.as_ref().map_or(0, |value| value.len());
        self.bytes += value_bytes(&value);
        let key_bytes = key.len();
        match self.changes.set(table, key, value) {
            Some(replaced) => self.bytes -= value_bytes(&replaced),
            None => self.bytes += key_bytes + ROW_OVERHEAD_BYTES,
        }
    }
}

//! A walk over one table, a bounded number of rows at a time.

use crate::keys;
use crate::store::tables::{Reader, StoreError, Table};
use std::ops::ControlFlow;

/// What a walk calls for each row, until it fails.
pub type VisitRow<'v> = &'v mut dyn FnMut(&[u8], &[u8]) -> Result<(), StoreError>;

/// Where a walk is.
pub struct Walk {
    table: Table,
    next: Vec<u8>,
    until: Option<Vec<u8>>,
}

impl Walk {
    /// Over the rows whose key begins with `prefix`; over all if it is empty.
    pub fn new(table: Table, prefix: &[u8]) -> Self {
        Self { table, next: prefix.to_vec(), until: keys::after_prefix(prefix) }
    }

    pub fn table(&self) -> Table {
        self.table
    }

    /// Visits the next rows, at most `limit`. How many there were: fewer than `limit` only at the end.
    pub fn step(&mut self, reader: &dyn Reader, limit: usize, visit: VisitRow<'_>) -> Result<usize, StoreError> {
        let (mut rows, mut last, mut outcome) = (0, Vec::new(), Ok(()));
        reader.scan(self.table, &self.next, self.until.as_deref(), false, &mut |key, value| {
            rows += 1;
            outcome = visit(key, value);
            if outcome.is_err() {
                return ControlFlow::Break(());
            }
            if rows == limit {
                last = key.to_vec();
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        outcome?;
        if rows == limit {
            // The first key behind it.
            last.push(0);
            self.next = last;
        }
        Ok(rows)
    }
}

/// A row that was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup<T> {
    Found(T),
    Missing,
    /// It is there, but makes no sense: nothing may be concluded from it.
    Unreadable,
}

impl<T> Lookup<T> {
    /// Of what a typed read gave.
    pub fn of(read: Result<Option<T>, StoreError>) -> Result<Self, StoreError> {
        match read {
            Ok(Some(found)) => Ok(Self::Found(found)),
            Ok(None) => Ok(Self::Missing),
            Err(StoreError::Corrupt(_)) => Ok(Self::Unreadable),
            Err(error) => Err(error),
        }
    }

    pub fn found(self) -> Option<T> {
        match self {
            Self::Found(found) => Some(found),
            Self::Missing | Self::Unreadable => None,
        }
    }
}

//! The tables on disk: one redb file, written in whole commits only, read through a view of the last of them.
//!
//! One redb table per [`Table`], bytes to bytes. Besides them redb's `store` table says how far it goes: key `position`,
//! value: version (1 byte), last applied command (8), its time (8).

use super::tables::{Changes, Reader, StoreError, Table, Value, Visit, disk_error, key_range};
use cairn_common::ids::LogIndex;
use cairn_common::time::Timestamp;
use cairn_runtime::disk::{Disk, DiskFile, OpenMode};
use cairn_runtime::redb_file::RedbFile;
use redb::{ReadOnlyTable, ReadableDatabase, ReadableTableMetadata, TableDefinition};
use std::io;
use std::path::Path;
use std::sync::Arc;

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

const STORE: Definition = TableDefinition::new("store");
const POSITION: &[u8] = b"position";
const POSITION_VERSION: u8 = 1;

const fn definition(table: Table) -> Definition {
    TableDefinition::new(table.name())
}

/// How far the tables go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// The last command that was applied; zero if there was none.
    pub applied: LogIndex,
    /// Its time.
    pub at: Timestamp,
}

/// An open file of tables.
pub struct Database {
    redb: redb::Database,
    file: Arc<dyn DiskFile>,
}

impl Database {
    /// Opens the file, or makes one without rows. Blocks.
    pub fn open(disk: &dyn Disk, path: &Path, cache_bytes: usize) -> Result<Self, StoreError> {
        if disk.exists(path).map_err(|error| disk_error("look for", path, &error))? {
            return Self::open_file(disk, path, OpenMode::ReadWrite, cache_bytes);
        }
        Self::create(disk, path, cache_bytes, |database| database.write(&Changes::default(), Position::default()))
    }

    /// Makes the file with what `fill` writes (at least one commit): after a crash there is all of it or no file. Blocks.
    pub fn create(
        disk: &dyn Disk,
        path: &Path,
        cache_bytes: usize,
        fill: impl FnOnce(&Self) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        let unfinished = path.with_extension("new");
        match disk.remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(disk_error("remove", &unfinished, &error)),
            _ => {}
        }
        let database = Self::open_file(disk, &unfinished, OpenMode::CreateNew, cache_bytes)?;
        fill(&database)?;
        let named = disk.rename(&unfinished, path).and_then(|()| disk.sync_directory(path.parent().unwrap_or(Path::new("."))));
        named.map_err(|error| disk_error("rename", &unfinished, &error))?;
        Ok(database)
    }

    fn open_file(disk: &dyn Disk, path: &Path, mode: OpenMode, cache_bytes: usize) -> Result<Self, StoreError> {
        let file = disk.open(path, mode).map_err(|error| disk_error("open", path, &error))?;
        let redb =
            redb::Database::builder().set_cache_size(cache_bytes).create_with_backend(RedbFile(file.clone())).map_err(store_error)?;
        Ok(Self { redb, file })
    }

    /// Applies changes and says how far they go, in one durable commit. Blocks.
    ///
    /// It must be one: commands are not idempotent, so half of their changes could not be told from the state before.
    pub fn write(&self, changes: &Changes, position: Position) -> Result<(), StoreError> {
        self.write_rows(changes, position).map_err(store_error)
    }

    fn write_rows(&self, changes: &Changes, position: Position) -> Result<(), redb::Error> {
        let mut transaction = self.redb.begin_write()?;
        transaction.set_durability(redb::Durability::Immediate)?;
        // Names and chunk ids are chosen by strangers, who could forge a page that passes for a commit.
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        for table in Table::ALL {
            let mut rows = transaction.open_table(definition(*table))?;
            for (key, value) in changes.table(*table) {
                match value {
                    Some(value) => rows.insert(&**key, &**value)?,
                    None => rows.remove(&**key)?,
                };
            }
        }
        transaction.open_table(STORE)?.insert(POSITION, &encode_position(position)[..])?;
        Ok(transaction.commit()?)
    }

    /// What the last commit left. Blocks briefly.
    pub fn view(&self) -> Result<View, StoreError> {
        self.open_view().map_err(store_error)
    }

    fn open_view(&self) -> Result<View, redb::Error> {
        let transaction = self.redb.begin_read()?;
        let tables = Table::ALL.iter().map(|table| transaction.open_table(definition(*table)));
        Ok(View { tables: tables.collect::<Result<_, _>>()? })
    }

    /// How large the file is.
    pub fn bytes(&self) -> Result<u64, StoreError> {
        self.file.len().map_err(|error| StoreError::Disk(format!("the tables: {error}")))
    }

    /// How far the last commit went. Blocks briefly.
    pub fn position(&self) -> Result<Position, StoreError> {
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            let table = self.redb.begin_read()?.open_table(STORE)?;
            Ok(table.get(POSITION)?.map(|guard| guard.value().to_vec()))
        };
        let bytes = read().map_err(store_error)?;
        bytes.as_deref().and_then(decode_position).ok_or_else(|| StoreError::Corrupt("the tables do not say how far they go".to_owned()))
    }
}

/// The tables as one commit left them. Keeping a view keeps the pages of its commit, so it is replaced after each.
pub struct View {
    /// By code of the table.
    tables: Vec<ReadOnlyTable<&'static [u8], &'static [u8]>>,
}

impl View {
    /// Rows of all tables.
    pub fn rows(&self) -> Result<u64, StoreError> {
        self.tables.iter().map(|table| table.len().map_err(store_error)).sum()
    }
}

impl Reader for View {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Value>, StoreError> {
        let row = self.tables[table as usize].get(key).map_err(store_error)?;
        Ok(row.map(|value| Arc::from(value.value())))
    }

    fn scan(&self, table: Table, from: &[u8], until: Option<&[u8]>, reverse: bool, visit: Visit<'_>) -> Result<(), StoreError> {
        let Some(range) = key_range(from, until) else { return Ok(()) };
        let mut rows = self.tables[table as usize].range::<&[u8]>(range).map_err(store_error)?;
        while let Some(row) = if reverse { rows.next_back() } else { rows.next() } {
            let (key, value) = row.map_err(store_error)?;
            if visit(key.value(), value.value()).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn encode_position(position: Position) -> [u8; 17] {
    let mut bytes = [POSITION_VERSION; 17];
    bytes[1..9].copy_from_slice(&position.applied.0.to_le_bytes());
    bytes[9..].copy_from_slice(&position.at.nanos().to_le_bytes());
    bytes
}

fn decode_position(bytes: &[u8]) -> Option<Position> {
    let bytes: &[u8; 17] = bytes.try_into().ok()?;
    let (applied, at) = (std::array::from_fn(|i| bytes[1 + i]), std::array::from_fn(|i| bytes[9 + i]));
    let position = Position { applied: LogIndex(u64::from_le_bytes(applied)), at: Timestamp::from_nanos(i64::from_le_bytes(at)) };
    (bytes[0] == POSITION_VERSION).then_some(position)
}

fn store_error(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => StoreError::Corrupt(format!("the tables: {error}")),
        redb::Error::Corrupted(problem) => StoreError::Corrupt(format!("the tables: {problem}")),
        error => StoreError::Disk(format!("the tables: {error}")),
    }
}

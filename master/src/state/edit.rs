//! One command at work: typed reads and staged writes, the command's time and its place in the log.
//!
//! Functions that change things check everything first and stage only then, so that a refusal leaves nothing behind.

use crate::keys::{self, Record};
use crate::state::outcome::Attempt;
use crate::state::record::{ClusterRecord, Counters, Inode, fetch};
use crate::store::tables::{Batch, Reader, StoreError, Table};
use cairn_common::attributes::FileKind;
use cairn_common::error::FsError;
use cairn_common::ids::{DirCookie, Ino, LogIndex};
use cairn_common::time::Timestamp;

/// How many extents, orphans or results one command removes at most; what is left is done by the next one, so that a huge
/// file does not stop the master. Small in tests, so that they see the seams.
pub const STEPS_PER_COMMAND: usize = if cfg!(test) { 8 } else { 1024 };

/// See the module.
pub struct Edit<'b, 'r> {
    batch: &'b mut Batch<'r>,
    pub index: LogIndex,
    pub at: Timestamp,
    cookies: u64,
}

impl<'b, 'r> Edit<'b, 'r> {
    pub fn new(batch: &'b mut Batch<'r>, index: LogIndex, at: Timestamp) -> Self {
        Self { batch, index, at, cookies: 0 }
    }

    /// The tables with everything that was staged so far.
    pub fn reader(&self) -> &dyn Reader {
        &*self.batch
    }

    pub fn fetch<R: Record>(&self, table: Table, key: &[u8]) -> Result<Option<R>, StoreError> {
        fetch(self.reader(), table, key)
    }

    pub fn put(&mut self, table: Table, key: &[u8], record: &impl Record) {
        self.batch.put(table, key, record.encode());
    }

    /// Stages a value that is not a record: the key says it all, or the bytes are the user's.
    pub fn put_raw(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.batch.put(table, key, value);
    }

    pub fn delete(&mut self, table: Table, key: &[u8]) {
        self.batch.delete(table, key);
    }

    /// A place in a listing that no entry has had before. Grows; a command takes at most four.
    pub fn fresh_cookie(&mut self) -> DirCookie {
        debug_assert!(self.cookies < 4);
        self.cookies += 1;
        DirCookie(self.index.0 * 4 + self.cookies - 1)
    }

    /// An inode that a client named by number: `Stale` if it is gone.
    pub fn inode(&self, ino: Ino) -> Attempt<Inode> {
        Ok(self.fetch(Table::Inodes, &keys::inode(ino))?.ok_or(FsError::Stale)?)
    }

    /// An inode that the tables themselves name.
    pub fn linked_inode(&self, ino: Ino) -> Result<Inode, StoreError> {
        let missing = || StoreError::Corrupt(format!("inode {ino} is named by an entry but does not exist"));
        self.fetch(Table::Inodes, &keys::inode(ino))?.ok_or_else(missing)
    }

    /// A directory in which something shall be made, removed or renamed. A removed one counts as absent.
    pub fn directory(&self, ino: Ino) -> Attempt<Inode> {
        let directory: Inode = self.fetch(Table::Inodes, &keys::inode(ino))?.ok_or(FsError::NotFound)?;
        if !directory.is_directory() {
            return Err(FsError::NotDirectory.into());
        }
        if directory.nlink == 0 {
            return Err(FsError::NotFound.into());
        }
        Ok(directory)
    }

    /// A regular file whose content shall be read or written.
    pub fn regular(&self, ino: Ino) -> Attempt<Inode> {
        let inode = self.inode(ino)?;
        match inode.kind() {
            FileKind::Regular => Ok(inode),
            FileKind::Directory => Err(FsError::IsDirectory.into()),
            _ => Err(FsError::Invalid.into()),
        }
    }

    /// Stages an inode as changed by this command.
    pub fn put_inode(&mut self, ino: Ino, inode: &mut Inode) {
        inode.version = self.index.0;
        self.put(Table::Inodes, &keys::inode(ino), inode);
    }

    pub fn cluster(&self) -> Result<ClusterRecord, StoreError> {
        let missing = || StoreError::Corrupt("the cluster was never initialised".to_owned());
        self.fetch(Table::Meta, &keys::cluster())?.ok_or_else(missing)
    }

    pub fn put_cluster(&mut self, cluster: &ClusterRecord) {
        self.put(Table::Meta, &keys::cluster(), cluster);
    }

    pub fn counters(&self) -> Result<Counters, StoreError> {
        let missing = || StoreError::Corrupt("the counters are missing".to_owned());
        self.fetch(Table::Meta, &keys::counters())?.ok_or_else(missing)
    }

    pub fn put_counters(&mut self, counters: &Counters) {
        self.put(Table::Meta, &keys::counters(), counters);
    }
}

//! redb on the disk seam, so that its tables crash and fail together with the simulated disk they lie on.

use crate::disk::DiskFile;
use redb::StorageBackend;
use std::io;
use std::sync::Arc;

/// A file as redb wants it.
#[derive(Debug)]
pub struct RedbFile(pub Arc<dyn DiskFile>);

impl StorageBackend for RedbFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(&[data], offset)
    }
}

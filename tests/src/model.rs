//! What is right: one directory of files, as a map of names to bytes.

use std::collections::BTreeMap;

/// A directory of regular files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Model {
    /// pwrite(2); makes the file if it is missing, and fills a gap with zeros.
    pub fn write(&mut self, name: &str, offset: usize, data: &[u8]) {
        let file = self.files.entry(name.to_owned()).or_default();
        let end = offset + data.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[offset..end].copy_from_slice(data);
    }

    /// ftruncate(2); makes the file if it is missing.
    pub fn truncate(&mut self, name: &str, size: usize) {
        self.files.entry(name.to_owned()).or_default().resize(size, 0);
    }

    /// rename(2), replacing. Whether there was anything to rename.
    pub fn rename(&mut self, from: &str, to: &str) -> bool {
        let Some(content) = self.files.remove(from) else { return false };
        self.files.insert(to.to_owned(), content);
        true
    }

    /// unlink(2). Whether there was anything to remove.
    pub fn remove(&mut self, name: &str) -> bool {
        self.files.remove(name).is_some()
    }
}

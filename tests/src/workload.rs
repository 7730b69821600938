//! Random operations of one client in a directory of its own, on the real thing and on the model.

use crate::model::Model;
use cairn_client::{FileSystem, OpenFlags};
use cairn_common::attributes::{AttributeChange, FileKind, NewInode, Owner};
use cairn_common::error::FsError;
use cairn_common::ids::{DirCookie, Ino};
use cairn_common::wire::master::RenameMode;
use cairn_runtime::Runtime;

const NAMES: u64 = 6;
const WRITE_BYTES_MAX: u64 = 200_000;
const OFFSET_MAX: u64 = 400_000;
const READ_BYTES: usize = 1 << 20;

/// One client, its directory, and what should be in it.
pub struct Workload {
    runtime: Runtime,
    fs: FileSystem,
    directory: Ino,
    pub model: Model,
}

/// Something that can be done next.
#[derive(Debug, Clone, Copy)]
enum Step {
    Write { sync: bool },
    Truncate,
    Rename,
    Remove,
    Read,
}

impl Workload {
    /// Makes the directory.
    pub async fn new(runtime: Runtime, fs: FileSystem, name: &str) -> Self {
        let inode = new_inode(FileKind::Directory, 0o755);
        let directory = fs.create(Ino::ROOT, name.as_bytes(), inode, false).await.expect("the directory is made").ino;
        Self { runtime, fs, directory, model: Model::default() }
    }

    fn below(&self, limit: u64) -> u64 {
        self.runtime.random_u64() % limit
    }

    fn name(&self) -> String {
        format!("file-{}", self.below(NAMES))
    }

    fn step(&self) -> Step {
        match self.below(10) {
            0..=2 => Step::Write { sync: false },
            3..=4 => Step::Write { sync: true },
            5 => Step::Truncate,
            6 => Step::Rename,
            7 => Step::Remove,
            _ => Step::Read,
        }
    }

    /// Does random operations and compares each answer with the model's. No operation may fail: at most m servers are away,
    /// and what waits for the master goes on when it is back.
    pub async fn run(&mut self, steps: usize) {
        for number in 0..steps {
            let step = self.step();
            let outcome = match step {
                Step::Write { sync } => self.write(sync).await,
                Step::Truncate => self.truncate().await,
                Step::Rename => self.rename().await,
                Step::Remove => self.remove().await,
                Step::Read => {
                    let name = self.name();
                    self.compare(&name).await
                }
            };
            outcome.unwrap_or_else(|error| panic!("step {number}, {step:?}: {error}"));
        }
    }

    async fn write(&mut self, sync: bool) -> Result<(), FsError> {
        let (name, offset, len) = (self.name(), self.below(OFFSET_MAX), 1 + self.below(WRITE_BYTES_MAX));
        let seed = self.runtime.random_u64();
        let data: Vec<u8> = (0..len).map(|at| (seed.wrapping_mul(at | 1) >> 32) as u8).collect();
        let inode = new_inode(FileKind::Regular, 0o644);
        let (_, opened) = self.fs.create_open(self.directory, name.as_bytes(), inode, true, OpenFlags::READ_WRITE).await?;
        let mut written = 0;
        while written < data.len() {
            written += self.fs.write(opened.handle, offset + written as u64, &data[written..]).await?;
        }
        self.model.write(&name, offset as usize, &data);
        if sync {
            self.fs.fsync(opened.handle, false).await?;
        }
        self.fs.flush(opened.handle).await?;
        self.fs.release(opened.handle)
    }

    async fn truncate(&mut self) -> Result<(), FsError> {
        let (name, size) = (self.name(), self.below(OFFSET_MAX));
        let ino = match self.fs.lookup(self.directory, name.as_bytes()).await {
            Ok(attributes) => attributes.ino,
            Err(FsError::NotFound) if !self.model.files.contains_key(&name) => return Ok(()),
            Err(error) => return Err(error),
        };
        let change = AttributeChange { size: Some(size), ..AttributeChange::default() };
        let after = self.fs.set_attributes(ino, change, None).await?;
        assert_eq!(after.size, size);
        self.model.truncate(&name, size as usize);
        Ok(())
    }

    async fn rename(&mut self) -> Result<(), FsError> {
        let (from, to) = (self.name(), self.name());
        let result = self.fs.rename(self.directory, from.as_bytes(), self.directory, to.as_bytes(), RenameMode::Replace).await;
        if from == to {
            return if self.model.files.contains_key(&from) { result } else { expect_not_found(result) };
        }
        if self.model.rename(&from, &to) { result } else { expect_not_found(result) }
    }

    async fn remove(&mut self) -> Result<(), FsError> {
        let name = self.name();
        let result = self.fs.unlink(self.directory, name.as_bytes()).await;
        if self.model.remove(&name) { result } else { expect_not_found(result) }
    }

    /// Removes all files.
    pub async fn remove_everything(&mut self) {
        for name in std::mem::take(&mut self.model.files).into_keys() {
            self.fs.unlink(self.directory, name.as_bytes()).await.expect("the file is there");
        }
    }

    /// Removes, through another client, whatever files there are: this one has died.
    pub async fn forget_everything(self, other: &FileSystem) {
        for number in 0..NAMES {
            match other.unlink(self.directory, format!("file-{number}").as_bytes()).await {
                Ok(()) | Err(FsError::NotFound) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn compare(&self, name: &str) -> Result<(), FsError> {
        let found = self.fs.lookup(self.directory, name.as_bytes()).await;
        match self.model.files.get(name) {
            None => expect_not_found(found.map(|_| ())),
            Some(expected) => {
                let ino = found?.ino;
                let content = read_all(&self.fs, ino).await?;
                assert_same(name, expected, &content);
                Ok(())
            }
        }
    }

    /// Compares the whole directory, as another client sees it, with the model.
    pub async fn compare_all_through(&self, other: &FileSystem) -> Result<(), FsError> {
        let handle = other.open_directory(self.directory).await?;
        let mut names = Vec::new();
        let mut after = DirCookie(0);
        loop {
            let page = other.read_directory(handle, after, 100, false).await?;
            names.extend(page.iter().map(|entry| (String::from_utf8_lossy(&entry.name).into_owned(), entry.ino)));
            match page.last() {
                Some(last) => after = last.cookie,
                None => break,
            }
        }
        names.sort();
        let expected: Vec<&String> = self.model.files.keys().collect();
        assert_eq!(names.iter().map(|(name, _)| name).collect::<Vec<_>>(), expected);
        for (name, ino) in names {
            assert_same(&name, &self.model.files[&name], &read_all(other, ino).await?);
        }
        Ok(())
    }
}

async fn read_all(fs: &FileSystem, ino: Ino) -> Result<Vec<u8>, FsError> {
    let opened = fs.open(ino, OpenFlags::READ).await?;
    let mut content = Vec::new();
    loop {
        let part = fs.read(opened.handle, content.len() as u64, READ_BYTES).await?;
        if part.is_empty() {
            break;
        }
        content.extend_from_slice(&part);
    }
    fs.release(opened.handle)?;
    Ok(content)
}

fn assert_same(name: &str, expected: &[u8], found: &[u8]) {
    assert_eq!(found.len(), expected.len(), "{name} has another length");
    if let Some(at) = (0..expected.len()).find(|at| expected[*at] != found[*at]) {
        panic!("{name} differs at byte {at}: {} instead of {}", found[at], expected[at]);
    }
}

fn expect_not_found(result: Result<(), FsError>) -> Result<(), FsError> {
    match result {
        Err(FsError::NotFound) => Ok(()),
        other => panic!("the model has no such file, but the answer was {other:?}"),
    }
}

fn new_inode(kind: FileKind, mode: u16) -> NewInode {
    NewInode { kind, mode, owner: Owner { uid: 0, gid: 0 }, rdev: 0, symlink_target: Vec::new(), umask: 0 }
}

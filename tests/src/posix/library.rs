//! Clients of a simulated cluster, used through the library, without a kernel.
//!
//! What the kernel does before it asks a file system is done here: it walks paths, follows symlinks, knows what may be opened how, and refuses to
//! move anything over a directory that it is in.

use super::operation::{Operation, Path, Range, Step};
use super::outcome::{Bytes, Failure, Holds, Kind, Outcome, Record, Seen, Snapshot, Status};
use super::subject::Subject;
use super::tree::{Last, SYMLINKS_MAX};
use crate::cluster::SimCluster;
use cairn_client::{AllocateMode, FileSystem, Handle, OpenFlags};
use cairn_common::attributes::{AttributeChange, Attributes, FileKind, NewInode, Owner};
use cairn_common::error::FsError;
use cairn_common::ids::{DirCookie, Ino};
use cairn_common::scheme::Scheme;
use cairn_common::wire::master::RenameMode;
use cairn_runtime::sim::World;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

const CHUNKSERVERS: usize = 3;
const SCHEME: (u8, u8) = (2, 1);
/// Descriptors of a client.
const OPEN_MAX: usize = 6;
const ENTRIES_AT_ONCE: usize = 100;
/// Of virtual time, which nothing here should need.
const TIME_LIMIT: Duration = Duration::from_secs(3_600);
const APPEND: OpenFlags = OpenFlags { append: true, ..OpenFlags::READ_WRITE };

/// A cluster for each sequence, with so many clients.
pub struct Library {
    pub clients: usize,
    pub seed: u64,
}

impl Subject for Library {
    fn doors(&self) -> usize {
        self.clients
    }

    fn live(&self, steps: &[Step]) -> Result<Record, String> {
        let world = World::new(self.seed);
        world.set_time_limit(TIME_LIMIT);
        world.run_until(live_in(world.clone(), self.clients, steps))
    }
}

async fn live_in(world: World, clients: usize, steps: &[Step]) -> Result<Record, String> {
    let scheme = Scheme::new(SCHEME.0, SCHEME.1).map_err(|error| error.to_string())?;
    let cluster = SimCluster::start(world, scheme, CHUNKSERVERS).await;
    let mut doors = Vec::new();
    for number in 0..clients {
        let (_, fs) = cluster.client(&format!("client-{number}")).await;
        cluster.wait_until_whole(&fs).await;
        doors.push(Door(fs, RefCell::default()));
    }
    let (mut outcomes, mut snapshots) = (Vec::new(), Vec::new());
    for step in steps {
        outcomes.push(doors[step.door % clients].answer(&step.operation).await.into());
    }
    for door in &doors {
        snapshots.push(door.snapshot().await.map_err(|error| format!("can't look at what is there: {error}"))?);
    }
    Ok(Record { outcomes, snapshots })
}

/// One client, and the descriptors that it has not closed yet: as long as a file is open, the client knows more of it.
struct Door(FileSystem, RefCell<VecDeque<Handle>>);

/// The end of a path.
struct Place {
    /// From the root to the directory that has or would have the name.
    trail: Vec<Ino>,
    name: String,
    found: Option<Attributes>,
}

impl Place {
    fn parent(&self) -> Ino {
        self.trail.last().copied().unwrap_or(Ino::ROOT)
    }

    fn name(&self) -> &[u8] {
        self.name.as_bytes()
    }

    fn found(&self) -> Result<&Attributes, Failure> {
        self.found.as_ref().ok_or(Failure::NotFound)
    }
}

type Answer = Result<Outcome, Failure>;

impl Door {
    async fn answer(&self, operation: &Operation) -> Answer {
        match operation {
            Operation::MakeDirectory { path, mode } => self.make(path, new_inode(FileKind::Directory, *mode)).await,
            Operation::RemoveDirectory { path } => {
                let place = self.existing(path, Last::Itself).await?;
                done(self.0.remove_directory(place.parent(), place.name()).await)
            }
            Operation::Create { path, mode, exclusive: true } => self.make(path, new_inode(FileKind::Regular, *mode)).await,
            Operation::Create { path, mode, exclusive: false } => self.create_or_open(path, *mode).await,
            Operation::Write { path, offset, data } => self.write(path, OpenFlags::READ_WRITE, *offset, &data.bytes()).await,
            Operation::Append { path, data } => self.write(path, APPEND, 0, &data.bytes()).await,
            Operation::Read { path, range } => Ok(Outcome::Bytes(self.read(path, *range).await?)),
            Operation::Truncate { path, size } => self.truncate(path, *size).await,
            Operation::Punch { path, range } => self.allocate(path, AllocateMode::PunchHole, *range).await,
            Operation::Reserve { path, range } => self.allocate(path, AllocateMode::Extend, *range).await,
            Operation::Copy { from, range, to, offset } => self.copy(from, *range, to, *offset).await,
            Operation::Unlink { path } => {
                let place = self.existing(path, Last::Itself).await?;
                done(self.0.unlink(place.parent(), place.name()).await)
            }
            Operation::Rename { from, to, mode } => self.rename(from, to, *mode).await,
            Operation::Link { from, to } => self.link(from, to).await,
            Operation::Symlink { target, path } => {
                let inode = NewInode { symlink_target: target.0.clone().into_bytes(), ..new_inode(FileKind::Symlink, 0o777) };
                self.make(path, inode).await
            }
            Operation::ReadLink { path } => {
                let place = self.existing(path, Last::Itself).await?;
                Ok(Outcome::Target(self.read_link(place.found()?.ino).await?))
            }
            Operation::List { path } => Ok(Outcome::Entries(self.list_path(path).await?)),
            Operation::Status { path } => Ok(Outcome::Status(status(self.existing(path, Last::Itself).await?.found()?))),
            Operation::Sync { path } => self.sync(path).await,
            Operation::ChangeMode { .. }
            | Operation::SetXattr { .. }
            | Operation::GetXattr { .. }
            | Operation::RemoveXattr { .. }
            | Operation::ListXattrs { .. } => self.answer_about_attributes(operation).await,
        }
    }

    async fn answer_about_attributes(&self, operation: &Operation) -> Answer {
        let (Operation::ChangeMode { path, .. }
        | Operation::SetXattr { path, .. }
        | Operation::GetXattr { path, .. }
        | Operation::RemoveXattr { path, .. }
        | Operation::ListXattrs { path }) = operation
        else {
            return Err(Failure::Other(format!("not about attributes: {operation}")));
        };
        let ino = self.existing(path, Last::Followed).await?.found()?.ino;
        match operation {
            Operation::ChangeMode { mode, .. } => {
                let change = AttributeChange { mode: Some(*mode), ..AttributeChange::default() };
                done(self.0.set_attributes(ino, change, None).await)
            }
            Operation::SetXattr { name, value, mode, .. } => done(self.0.set_xattr(ino, name.as_bytes(), &value.bytes(), *mode).await),
            Operation::GetXattr { name, .. } => Ok(Outcome::Bytes(Bytes(self.0.get_xattr(ino, name.as_bytes()).await.map_err(failure)?))),
            Operation::RemoveXattr { name, .. } => done(self.0.remove_xattr(ino, name.as_bytes()).await),
            _ => Ok(Outcome::Xattrs(self.xattrs(ino).await?)),
        }
    }

    // ---- ways

    async fn find(&self, path: &Path, last: Last) -> Result<Place, Failure> {
        let (mut trail, mut links) = (vec![Ino::ROOT], 0);
        let mut ahead: Vec<String> = path.names().rev().map(str::to_owned).collect();
        loop {
            let name = ahead.pop().ok_or(Failure::NotFound)?;
            let is_last = ahead.is_empty();
            let found = match self.0.lookup(trail.last().copied().unwrap_or(Ino::ROOT), name.as_bytes()).await {
                Ok(attributes) => Some(attributes),
                Err(FsError::NotFound) => None,
                Err(error) => return Err(failure(error)),
            };
            match found {
                Some(link) if link.kind == FileKind::Symlink && (!is_last || last == Last::Followed) => {
                    links += 1;
                    if links > SYMLINKS_MAX {
                        return Err(Failure::TooManySymlinks);
                    }
                    ahead.extend(self.read_link(link.ino).await?.names().rev().map(str::to_owned));
                }
                found if is_last => return Ok(Place { trail, name, found }),
                Some(directory) if directory.kind == FileKind::Directory => trail.push(directory.ino),
                Some(_) => return Err(Failure::NotDirectory),
                None => return Err(Failure::NotFound),
            }
        }
    }

    /// The end of a path, where something is.
    async fn existing(&self, path: &Path, last: Last) -> Result<Place, Failure> {
        let place = self.find(path, last).await?;
        place.found()?;
        Ok(place)
    }

    /// A file that may be opened for writing.
    async fn writable(&self, path: &Path) -> Result<Ino, Failure> {
        let place = self.existing(path, Last::Followed).await?;
        let found = place.found()?;
        if found.kind == FileKind::Directory { Err(Failure::IsDirectory) } else { Ok(found.ino) }
    }

    // ---- names

    async fn make(&self, path: &Path, inode: NewInode) -> Answer {
        let place = self.find(path, Last::Itself).await?;
        done(self.0.create(place.parent(), place.name(), inode, false).await)
    }

    async fn create_or_open(&self, path: &Path, mode: u16) -> Answer {
        let place = self.find(path, Last::Followed).await?;
        let inode = new_inode(FileKind::Regular, mode);
        let made = self.0.create_open(place.parent(), place.name(), inode, true, OpenFlags::READ_WRITE).await;
        let (_, opened) = made.map_err(failure)?;
        done(self.close(opened.handle).await)
    }

    async fn rename(&self, from: &Path, to: &Path, mode: RenameMode) -> Answer {
        let (from, to) = (self.find(from, Last::Itself).await?, self.find(to, Last::Itself).await?);
        from.found()?;
        let is_above = to.found.as_ref().is_some_and(|target| from.trail.contains(&target.ino));
        if is_above && mode == RenameMode::Replace {
            return Err(Failure::NotEmpty);
        }
        done(self.0.rename(from.parent(), from.name(), to.parent(), to.name(), mode).await)
    }

    async fn link(&self, from: &Path, to: &Path) -> Answer {
        let source = self.existing(from, Last::Itself).await?;
        let place = self.find(to, Last::Itself).await?;
        done(self.0.link(source.found()?.ino, place.parent(), place.name()).await)
    }

    async fn read_link(&self, ino: Ino) -> Result<Path, Failure> {
        let target = self.0.read_link(ino).await.map_err(failure)?;
        Ok(Path(String::from_utf8_lossy(&target).into_owned()))
    }

    async fn list_path(&self, path: &Path) -> Result<Vec<(String, Kind)>, Failure> {
        let place = self.existing(path, Last::Followed).await?;
        let directory = place.found()?;
        if directory.kind != FileKind::Directory {
            return Err(Failure::NotDirectory);
        }
        self.list(directory.ino).await
    }

    async fn list(&self, ino: Ino) -> Result<Vec<(String, Kind)>, Failure> {
        let handle = self.0.open_directory(ino).await.map_err(failure)?;
        let (mut entries, mut after) = (Vec::new(), DirCookie(0));
        loop {
            let page = self.0.read_directory(handle, after, ENTRIES_AT_ONCE, false).await.map_err(failure)?;
            entries.extend(page.iter().map(|entry| (String::from_utf8_lossy(&entry.name).into_owned(), kind(entry.kind))));
            match page.last() {
                Some(last) => after = last.cookie,
                None => break,
            }
        }
        self.0.release_directory(handle).map_err(failure)?;
        entries.sort();
        Ok(entries)
    }

    // ---- content

    async fn open(&self, ino: Ino, flags: OpenFlags) -> Result<Handle, Failure> {
        Ok(self.0.open(ino, flags).await.map_err(failure)?.handle)
    }

    /// As close(2) of a copy of the descriptor does. The descriptor itself is closed some calls later.
    async fn close(&self, handle: Handle) -> Result<(), FsError> {
        self.0.flush(handle).await?;
        let mut open = self.1.borrow_mut();
        open.push_back(handle);
        if open.len() > OPEN_MAX { open.pop_front().map_or(Ok(()), |oldest| self.0.release(oldest)) } else { Ok(()) }
    }

    async fn write(&self, path: &Path, flags: OpenFlags, offset: u64, data: &[u8]) -> Answer {
        let handle = self.open(self.writable(path).await?, flags).await?;
        let written = self.0.write(handle, offset, data).await;
        self.close(handle).await.map_err(failure)?;
        Ok(Outcome::Count(written.map_err(failure)? as u64))
    }

    async fn read(&self, path: &Path, range: Range) -> Result<Bytes, Failure> {
        self.content(self.writable(path).await?, range).await
    }

    async fn content(&self, ino: Ino, range: Range) -> Result<Bytes, Failure> {
        let handle = self.open(ino, OpenFlags::READ).await?;
        let content = self.0.read(handle, range.offset, range.len as usize).await;
        self.close(handle).await.map_err(failure)?;
        Ok(Bytes(content.map_err(failure)?.to_vec()))
    }

    async fn truncate(&self, path: &Path, size: u64) -> Answer {
        let change = AttributeChange { size: Some(size), ..AttributeChange::default() };
        done(self.0.set_attributes(self.writable(path).await?, change, None).await)
    }

    async fn allocate(&self, path: &Path, mode: AllocateMode, range: Range) -> Answer {
        let handle = self.open(self.writable(path).await?, OpenFlags::READ_WRITE).await?;
        let allocated = self.0.allocate(handle, mode, range.offset, range.len).await;
        self.close(handle).await.map_err(failure)?;
        done(allocated)
    }

    async fn copy(&self, from: &Path, range: Range, to: &Path, offset: u64) -> Answer {
        self.existing(from, Last::Followed).await?;
        let (to, from) = (self.writable(to).await?, self.writable(from).await?);
        let (source, target) = (self.open(from, OpenFlags::READ).await?, self.open(to, OpenFlags::READ_WRITE).await?);
        let copied = self.0.copy_range(source, range.offset, target, offset, range.len).await;
        self.close(source).await.map_err(failure)?;
        self.close(target).await.map_err(failure)?;
        Ok(Outcome::Count(copied.map_err(failure)?))
    }

    async fn sync(&self, path: &Path) -> Answer {
        let place = self.existing(path, Last::Followed).await?;
        let found = place.found()?;
        if found.kind == FileKind::Directory {
            return done(self.0.sync_directory(found.ino).await);
        }
        let handle = self.open(found.ino, OpenFlags::READ).await?;
        let synced = self.0.fsync(handle, false).await;
        self.close(handle).await.map_err(failure)?;
        done(synced)
    }

    // ---- attributes

    async fn xattrs(&self, ino: Ino) -> Result<Vec<String>, Failure> {
        let names = self.0.list_xattr(ino).await.map_err(failure)?;
        let mut names: Vec<String> = names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        names.sort();
        Ok(names)
    }

    async fn snapshot(&self) -> Result<Snapshot, Failure> {
        let (mut seen, mut ahead) = (Snapshot::new(), vec![(None, Ino::ROOT)]);
        while let Some((path, ino)) = ahead.pop() {
            for (name, _) in self.list(ino).await? {
                let path = Path::below(path.as_ref(), &name);
                let found = self.0.lookup(ino, name.as_bytes()).await.map_err(failure)?;
                if found.kind == FileKind::Directory {
                    ahead.push((Some(path.clone()), found.ino));
                }
                seen.insert(path, self.look(&found).await?);
            }
        }
        Ok(seen)
    }

    async fn look(&self, found: &Attributes) -> Result<Seen, Failure> {
        let holds = match kind(found.kind) {
            Kind::File => Holds::Content(self.content(found.ino, Range { offset: 0, len: found.size + 1 }).await?),
            Kind::Symlink => Holds::Target(self.read_link(found.ino).await?),
            Kind::Directory | Kind::Other => Holds::Entries,
        };
        let mut xattrs = BTreeMap::new();
        for name in self.xattrs(found.ino).await? {
            let value = self.0.get_xattr(found.ino, name.as_bytes()).await.map_err(failure)?;
            xattrs.insert(name, Bytes(value));
        }
        Ok(Seen { status: status(found), holds, xattrs })
    }
}

fn done<T>(result: Result<T, FsError>) -> Answer {
    result.map(|_| Outcome::Done).map_err(failure)
}

fn new_inode(kind: FileKind, mode: u16) -> NewInode {
    NewInode { kind, mode, owner: Owner { uid: 0, gid: 0 }, rdev: 0, symlink_target: Vec::new(), umask: 0 }
}

fn kind(kind: FileKind) -> Kind {
    match kind {
        FileKind::Regular => Kind::File,
        FileKind::Directory => Kind::Directory,
        FileKind::Symlink => Kind::Symlink,
        FileKind::Fifo | FileKind::Socket | FileKind::CharDevice | FileKind::BlockDevice => Kind::Other,
    }
}

fn status(found: &Attributes) -> Status {
    let size = (found.kind != FileKind::Directory).then_some(found.size);
    Status { kind: kind(found.kind), mode: found.mode, links: found.nlink.into(), size }
}

fn failure(error: FsError) -> Failure {
    match error {
        FsError::NotFound => Failure::NotFound,
        FsError::Exists => Failure::Exists,
        FsError::NotDirectory => Failure::NotDirectory,
        FsError::IsDirectory => Failure::IsDirectory,
        FsError::NotEmpty => Failure::NotEmpty,
        FsError::Invalid => Failure::Invalid,
        FsError::NotPermitted => Failure::NotPermitted,
        FsError::NoAttribute => Failure::NoAttribute,
        other => Failure::Other(other.to_string()),
    }
}

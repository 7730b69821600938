//! The file-system operations as the kernel calls them.
//!
//! Each method takes one of two ways: the library answers from memory and the reply goes out on this very thread (a wake-up
//! of another thread costs about 30 us); or a task is started that awaits the library and then replies.

use crate::convert::{file_attr, ino, kind_of_mode, permissions, time_change, timestamp};
use crate::directory::{fill, fill_plus};
use crate::errno::errno;
use bytes::Bytes;
use cairn_client::{AllocateMode, FileSystem, Handle, OpenFlags, Opened, SeekTarget};
use cairn_common::attributes::{AttributeChange, Attributes, FileKind, NewInode, Owner};
use cairn_common::error::FsError;
use cairn_common::ids::{DirCookie, Ino};
use cairn_common::limits::NAME_BYTES_MAX;
use cairn_common::wire::master::{RenameMode, XattrMode};
use cairn_runtime::Runtime;
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner,
    OpenAccMode, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

/// Inode numbers are never used twice, so there is but one generation.
pub const GENERATION: Generation = Generation(0);
/// Background requests (read-ahead, direct I/O) the kernel may have under way.
const BACKGROUND_REQUESTS_MAX: u16 = 128;
/// The reply to copy_file_range has a 32-bit count; the caller goes on after a shorter copy.
const COPY_BYTES_MAX: u64 = 1 << 31;
const WRITE_BYTES_MAX: u32 = 1 << 20;
/// Units of statfs.
const BLOCK_BYTES: u64 = 4096;

/// Serves one mount.
pub struct Adapter {
    runtime: Runtime,
    fs: FileSystem,
    /// What the kernel calls inode 1; another directory than the root when a subdirectory is mounted.
    root: Ino,
}

impl Adapter {
    pub fn new(runtime: Runtime, fs: FileSystem, root: Ino) -> Self {
        Self { runtime, fs, root }
    }

    /// Our inode for the kernel's: they differ for the top of a mounted subdirectory alone.
    fn ino(&self, number: INodeNo) -> Ino {
        if number == INodeNo::ROOT { self.root } else { ino(number) }
    }

    fn start(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(name, work);
    }

    fn entry_task<F>(&self, name: &'static str, reply: ReplyEntry, work: impl FnOnce(FileSystem) -> F + Send + 'static)
    where
        F: Future<Output = Result<Attributes, FsError>> + Send + 'static,
    {
        let fs = self.fs.clone();
        self.start(name, async move {
            let result = work(fs.clone()).await;
            reply_entry(&fs, reply, result);
        });
    }

    fn empty_task<F>(&self, name: &'static str, reply: ReplyEmpty, work: impl FnOnce(FileSystem) -> F + Send + 'static)
    where
        F: Future<Output = Result<(), FsError>> + Send + 'static,
    {
        let fs = self.fs.clone();
        self.start(name, async move {
            match work(fs).await {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(errno(error)),
            }
        });
    }
}

fn reply_entry(fs: &FileSystem, reply: ReplyEntry, result: Result<Attributes, FsError>) {
    match result {
        Ok(attributes) => reply.entry(&fs.validity(attributes.ino), &file_attr(&attributes), GENERATION),
        Err(error) => reply.error(errno(error)),
    }
}

fn reply_attr(fs: &FileSystem, reply: ReplyAttr, result: Result<Attributes, FsError>, number: INodeNo) {
    match result {
        Ok(attributes) => reply.attr(&fs.validity(attributes.ino), &fuser::FileAttr { ino: number, ..file_attr(&attributes) }),
        Err(error) => reply.error(errno(error)),
    }
}

fn reply_xattr(reply: ReplyXattr, size: u32, result: Result<Vec<u8>, FsError>) {
    match result {
        Ok(data) if size == 0 => reply.size(data.len() as u32),
        Ok(data) if data.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(data) => reply.data(&data),
        Err(error) => reply.error(errno(error)),
    }
}

/// As listxattr(2) wants them: each name ends with a NUL.
fn joined(names: Vec<Vec<u8>>) -> Vec<u8> {
    names.into_iter().flat_map(|name| name.into_iter().chain([0])).collect()
}

fn name_of(name: &OsStr) -> Vec<u8> {
    name.as_bytes().to_vec()
}

fn new_inode(request: &Request, kind: FileKind, mode: u32, rdev: u32, symlink_target: Vec<u8>) -> NewInode {
    let owner = Owner { uid: request.uid(), gid: request.gid() };
    NewInode { kind, mode: permissions(mode), owner, rdev, symlink_target }
}

fn open_flags(flags: fuser::OpenFlags) -> OpenFlags {
    let access = flags.acc_mode();
    OpenFlags {
        read: access != OpenAccMode::O_WRONLY,
        write: access != OpenAccMode::O_RDONLY,
        append: flags.0 & libc_flags::O_APPEND != 0,
        truncate: flags.0 & libc_flags::O_TRUNC != 0,
    }
}

/// The few flags of open(2) and fallocate(2) that the kernel passes as plain numbers.
mod libc_flags {
    use rustix::fs::{FallocateFlags, OFlags};
    pub const O_APPEND: i32 = OFlags::APPEND.bits() as i32;
    pub const O_EXCL: i32 = OFlags::EXCL.bits() as i32;
    pub const O_TRUNC: i32 = OFlags::TRUNC.bits() as i32;
    pub const FALLOC_FL_KEEP_SIZE: i32 = FallocateFlags::KEEP_SIZE.bits() as i32;
    pub const FALLOC_FL_PUNCH_HOLE: i32 = FallocateFlags::PUNCH_HOLE.bits() as i32;
    pub const FALLOC_FL_ZERO_RANGE: i32 = FallocateFlags::ZERO_RANGE.bits() as i32;
    pub const SEEK_DATA: i32 = 3;
    pub const SEEK_HOLE: i32 = 4;
    pub const XATTR_CREATE: i32 = 1;
    pub const XATTR_REPLACE: i32 = 2;
}

fn fopen_flags(opened: &Opened, writable: bool) -> FopenFlags {
    let mut flags = FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache);
    // A descriptor that can't write has nothing to flush on close: saves a request.
    flags.set(FopenFlags::FOPEN_NOFLUSH, !writable);
    flags
}

fn allocate_mode(mode: i32) -> Option<AllocateMode> {
    use libc_flags::{FALLOC_FL_KEEP_SIZE as KEEP, FALLOC_FL_PUNCH_HOLE as PUNCH, FALLOC_FL_ZERO_RANGE as ZERO};
    match mode {
        0 => Some(AllocateMode::Extend),
        m if m == KEEP => Some(AllocateMode::KeepSize),
        m if m == PUNCH | KEEP => Some(AllocateMode::PunchHole),
        m if m == ZERO => Some(AllocateMode::ZeroRange { keep_size: false }),
        m if m == ZERO | KEEP => Some(AllocateMode::ZeroRange { keep_size: true }),
        _ => None,
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = [
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_AUTO_INVAL_DATA,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_CACHE_SYMLINKS,
        ];
        // Each is an improvement that an older kernel may lack.
        let refused: Vec<_> = wanted.into_iter().filter(|flag| config.add_capabilities(*flag).is_err()).collect();
        if !refused.is_empty() {
            tracing::info!(?refused, "the kernel lacks some FUSE features");
        }
        let _ = config.set_max_write(WRITE_BYTES_MAX);
        let _ = config.set_max_readahead(WRITE_BYTES_MAX);
        let _ = config.set_max_background(BACKGROUND_REQUESTS_MAX);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let parent = self.ino(parent);
        if name.len() > NAME_BYTES_MAX {
            return reply.error(Errno::ENAMETOOLONG);
        }
        if let Some(result) = self.fs.try_lookup(parent, name.as_bytes()) {
            return reply_entry(&self.fs, reply, result);
        }
        let name = name_of(name);
        self.entry_task("lookup", reply, move |fs| async move { fs.lookup(parent, &name).await });
    }

    fn getattr(&self, _request: &Request, number: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        let ino = self.ino(number);
        if let Some(attributes) = self.fs.try_attributes(ino) {
            return reply_attr(&self.fs, reply, Ok(attributes), number);
        }
        let fs = self.fs.clone();
        self.start("getattr", async move { reply_attr(&fs, reply, fs.attributes(ino).await, number) });
    }

    fn setattr(
        &self,
        _request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = AttributeChange {
            mode: mode.map(permissions),
            uid,
            gid,
            size,
            atime: atime.map(time_change),
            mtime: mtime.map(time_change),
            ctime: ctime.map(timestamp),
        };
        let (ino, fs) = (self.ino(number), self.fs.clone());
        let handle = handle.map(|handle| Handle(handle.0));
        self.start("setattr", async move { reply_attr(&fs, reply, fs.set_attributes(ino, change, handle).await, number) });
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        let (ino, fs) = (self.ino(ino), self.fs.clone());
        self.start("readlink", async move {
            match fs.read_link(ino).await {
                Ok(target) => reply.data(&target),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn mknod(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, rdev: u32, reply: ReplyEntry) {
        let Some(kind) = kind_of_mode(mode) else { return reply.error(Errno::EINVAL) };
        let (parent, name) = (self.ino(parent), name_of(name));
        let inode = new_inode(request, kind, mode, rdev, Vec::new());
        self.entry_task("mknod", reply, move |fs| async move { fs.create(parent, &name, inode, false).await });
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        let (parent, name) = (self.ino(parent), name_of(name));
        let inode = new_inode(request, FileKind::Directory, mode, 0, Vec::new());
        self.entry_task("mkdir", reply, move |fs| async move { fs.create(parent, &name, inode, false).await });
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (parent, name) = (self.ino(parent), name_of(name));
        let inode = new_inode(request, FileKind::Symlink, 0o777, 0, name_of(target.as_os_str()));
        self.entry_task("symlink", reply, move |fs| async move { fs.create(parent, &name, inode, false).await });
    }

    fn link(&self, _request: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (ino, parent, name) = (self.ino(ino), self.ino(parent), name_of(name));
        self.entry_task("link", reply, move |fs| async move { fs.link(ino, parent, &name).await });
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (parent, name) = (self.ino(parent), name_of(name));
        self.empty_task("unlink", reply, move |fs| async move { fs.unlink(parent, &name).await });
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (parent, name) = (self.ino(parent), name_of(name));
        self.empty_task("rmdir", reply, move |fs| async move { fs.remove_directory(parent, &name).await });
    }

    fn rename(
        &self,
        _request: &Request,
        from: INodeNo,
        from_name: &OsStr,
        to: INodeNo,
        to_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mode = match flags {
            none if none.is_empty() => RenameMode::Replace,
            RenameFlags::RENAME_NOREPLACE => RenameMode::NoReplace,
            RenameFlags::RENAME_EXCHANGE => RenameMode::Exchange,
            _ => return reply.error(Errno::EINVAL),
        };
        let (from, to, from_name, to_name) = (self.ino(from), self.ino(to), name_of(from_name), name_of(to_name));
        self.empty_task("rename", reply, move |fs| async move { fs.rename(from, &from_name, to, &to_name, mode).await });
    }

    fn create(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, flags: i32, reply: ReplyCreate) {
        let (parent, name, fs) = (self.ino(parent), name_of(name), self.fs.clone());
        let inode = new_inode(request, FileKind::Regular, mode, 0, Vec::new());
        // Another mount may have made the file since the kernel looked: without O_EXCL that file is opened.
        let or_existing = flags & libc_flags::O_EXCL == 0;
        let flags = open_flags(fuser::OpenFlags(flags));
        self.start("create", async move {
            match fs.create_open(parent, &name, inode, or_existing, flags).await {
                Ok((attributes, opened)) => {
                    let handle = FileHandle(opened.handle.0);
                    reply.created(
                        &fs.validity(attributes.ino),
                        &file_attr(&attributes),
                        GENERATION,
                        handle,
                        fopen_flags(&opened, flags.write),
                    );
                }
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn open(&self, _request: &Request, ino: INodeNo, flags: fuser::OpenFlags, reply: ReplyOpen) {
        let (ino, fs, flags) = (self.ino(ino), self.fs.clone(), open_flags(flags));
        self.start("open", async move {
            match fs.open(ino, flags).await {
                Ok(opened) => reply.opened(FileHandle(opened.handle.0), fopen_flags(&opened, flags.write)),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: fuser::OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let handle = Handle(handle.0);
        let answer = move |result: Result<Bytes, FsError>| match result {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(errno(error)),
        };
        if let Some(result) = self.fs.try_read(handle, offset, size as usize) {
            return answer(result);
        }
        let fs = self.fs.clone();
        self.start("read", async move { answer(fs.read(handle, offset, size as usize).await) });
    }

    fn write(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: fuser::OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let handle = Handle(handle.0);
        let answer = move |result: Result<usize, FsError>| match result {
            Ok(written) => reply.written(written as u32),
            Err(error) => reply.error(errno(error)),
        };
        if let Some(result) = self.fs.try_write(handle, offset, data) {
            return answer(result);
        }
        let (fs, data) = (self.fs.clone(), Bytes::copy_from_slice(data));
        self.start("write", async move { answer(fs.write(handle, offset, &data).await) });
    }

    fn flush(&self, _request: &Request, _ino: INodeNo, handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        let handle = Handle(handle.0);
        if !self.fs.needs_flush(handle) {
            return reply.ok();
        }
        self.empty_task("flush", reply, move |fs| async move { fs.flush(handle).await });
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: fuser::OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        match self.fs.release(Handle(handle.0)) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn fsync(&self, _request: &Request, _ino: INodeNo, handle: FileHandle, data_only: bool, reply: ReplyEmpty) {
        let handle = Handle(handle.0);
        self.empty_task("fsync", reply, move |fs| async move { fs.fsync(handle, data_only).await });
    }

    fn opendir(&self, _request: &Request, ino: INodeNo, _flags: fuser::OpenFlags, reply: ReplyOpen) {
        let (ino, fs) = (self.ino(ino), self.fs.clone());
        self.start("opendir", async move {
            match fs.open_directory(ino).await {
                Ok(handle) => reply.opened(FileHandle(handle.0), FopenFlags::empty()),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn readdir(&self, _request: &Request, number: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectory) {
        let (fs, handle, ino) = (self.fs.clone(), Handle(handle.0), self.ino(number));
        self.start("readdir", fill(fs, handle, ino, offset, reply));
    }

    fn readdirplus(&self, _request: &Request, number: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        let (fs, handle, ino) = (self.fs.clone(), Handle(handle.0), self.ino(number));
        self.start("readdirplus", fill_plus(fs, handle, ino, offset, reply));
    }

    fn releasedir(&self, _request: &Request, _ino: INodeNo, handle: FileHandle, _flags: fuser::OpenFlags, reply: ReplyEmpty) {
        match self.fs.release_directory(Handle(handle.0)) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn fsyncdir(&self, _request: &Request, ino: INodeNo, _handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        let ino = self.ino(ino);
        self.empty_task("fsyncdir", reply, move |fs| async move { fs.sync_directory(ino).await });
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let fs = self.fs.clone();
        self.start("statfs", async move {
            match fs.usage().await {
                Ok(usage) => {
                    let (total, free) = (usage.total_bytes / BLOCK_BYTES, usage.free_bytes / BLOCK_BYTES);
                    // Inodes are not limited: as many more as there is room for.
                    let block = BLOCK_BYTES as u32;
                    reply.statfs(total, free, free, usage.inodes + free, free, block, NAME_BYTES_MAX as u32, block);
                }
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn setxattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, value: &[u8], flags: i32, _position: u32, reply: ReplyEmpty) {
        let mode = match flags {
            0 => XattrMode::Set,
            libc_flags::XATTR_CREATE => XattrMode::Create,
            libc_flags::XATTR_REPLACE => XattrMode::Replace,
            _ => return reply.error(Errno::EINVAL),
        };
        let (ino, name, value) = (self.ino(ino), name_of(name), value.to_vec());
        self.empty_task("setxattr", reply, move |fs| async move { fs.set_xattr(ino, &name, &value, mode).await });
    }

    fn getxattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let ino = self.ino(ino);
        if let Some(result) = self.fs.try_get_xattr(ino, name.as_bytes()) {
            return reply_xattr(reply, size, result);
        }
        let (name, fs) = (name_of(name), self.fs.clone());
        self.start("getxattr", async move { reply_xattr(reply, size, fs.get_xattr(ino, &name).await) });
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let ino = self.ino(ino);
        if let Some(names) = self.fs.try_list_xattr(ino) {
            return reply_xattr(reply, size, Ok(joined(names)));
        }
        let fs = self.fs.clone();
        self.start("listxattr", async move {
            reply_xattr(reply, size, fs.list_xattr(ino).await.map(joined));
        });
    }

    fn removexattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (ino, name) = (self.ino(ino), name_of(name));
        self.empty_task("removexattr", reply, move |fs| async move { fs.remove_xattr(ino, &name).await });
    }

    fn fallocate(&self, _request: &Request, _ino: INodeNo, handle: FileHandle, offset: u64, length: u64, mode: i32, reply: ReplyEmpty) {
        let Some(mode) = allocate_mode(mode) else { return reply.error(Errno::EOPNOTSUPP) };
        let handle = Handle(handle.0);
        self.empty_task("fallocate", reply, move |fs| async move { fs.allocate(handle, mode, offset, length).await });
    }

    fn lseek(&self, _request: &Request, _ino: INodeNo, handle: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let target = match whence {
            libc_flags::SEEK_DATA => SeekTarget::Data,
            libc_flags::SEEK_HOLE => SeekTarget::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        let (fs, handle) = (self.fs.clone(), Handle(handle.0));
        self.start("lseek", async move {
            match fs.seek(handle, offset, target).await {
                Ok(found) => reply.offset(found as i64),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn copy_file_range(
        &self,
        _request: &Request,
        _ino_in: INodeNo,
        from: FileHandle,
        from_offset: u64,
        _ino_out: INodeNo,
        to: FileHandle,
        to_offset: u64,
        length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (fs, from, to) = (self.fs.clone(), Handle(from.0), Handle(to.0));
        let length = length.min(COPY_BYTES_MAX);
        self.start("copy_file_range", async move {
            match fs.copy_range(from, from_offset, to, to_offset, length).await {
                Ok(copied) => reply.written(copied as u32),
                Err(error) => reply.error(errno(error)),
            }
        });
    }
}

/// Where a listing goes on: the kernel's offsets 1 and 2 stand for after "." and after "..".
pub fn cookie_of_offset(offset: u64) -> DirCookie {
    DirCookie(offset.saturating_sub(2))
}

/// The offset of the entry after `cookie`.
pub fn offset_of_cookie(cookie: DirCookie) -> u64 {
    cookie.0 + 2
}

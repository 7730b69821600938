//! The file-system operations as the kernel calls them.
//!
//! Each method takes one of two ways: the library answers from memory and the reply goes out on this very thread (a wake-up
//! of another thread costs about 30 us); or a task is started that awaits the library and then replies. Such a task ends early,
//! with EINTR, when its caller is called away (see `caller`).

use crate::answer::{
    Answer, GENERATION, changed_answer, empty_answer, found_answer, joined, made_answer, name_ttl, reply_attr, reply_found, reply_xattr,
    without,
};
use crate::caller::{Caller, Leaves};
use crate::convert::{file_attr, ino, kind_of_mode, permissions, time_change, timestamp};
use crate::directory::{fill, fill_plus};
use crate::errno::errno;
use crate::flags::{allocate_mode, fopen_flags, libc_flags, open_flags};
use crate::kernel::Kernel;
use crate::lock_call;
use crate::places::Place;
use bytes::Bytes;
use cairn_client::ports::KernelCache;
use cairn_client::{FileSystem, Handle, OpenFlags, Opened, Operation, SeekTarget, WriteAt, Written};
use cairn_common::acl;
use cairn_common::attributes::{AttributeChange, Attributes, FileKind, NewInode, Owner};
use cairn_common::error::FsError;
use cairn_common::ids::{DirCookie, Ino};
use cairn_common::limits::NAME_BYTES_MAX;
use cairn_common::lock::{self, LockClaim, LockFamily, LockRange};
use cairn_common::wire::master::{LockSeen, RenameMode, Usage, XattrMode};
use cairn_runtime::Runtime;
use cairn_runtime::clock::Moment;
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo, InitFlags, KernelConfig, LockOwner, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLock, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

/// Background requests (read-ahead, direct I/O) the kernel may have under way.
const BACKGROUND_REQUESTS_MAX: u16 = 128;
/// The reply to copy_file_range has a 32-bit count; the caller goes on after a shorter copy.
const COPY_BYTES_MAX: u64 = 1 << 31;
/// What the kernel hands over at a time. Longer writes come in pieces of so much, the first of up to a page less if its memory is not aligned to pages.
const WRITE_BYTES_MAX: u32 = 1 << 20;
const PAGE_BYTES: usize = 4096;
/// Units of statfs.
const BLOCK_BYTES: u64 = 4096;

/// Serves one mount.
pub struct Adapter {
    runtime: Runtime,
    fs: FileSystem,
    /// What the kernel calls inode 1; another directory than the root when a subdirectory is mounted.
    root: Ino,
    kernel: Kernel,
    /// The kernel looks at access lists. To keep one that nobody enforces would be a lie.
    enforces_lists: bool,
    /// Files that are not kept in pages can still be mapped.
    maps_direct: bool,
}

impl Adapter {
    pub fn new(runtime: Runtime, fs: FileSystem, root: Ino, kernel: Kernel) -> Self {
        Self { runtime, fs, root, kernel, enforces_lists: false, maps_direct: false }
    }

    /// Our inode for the kernel's: they differ for the top of a mounted subdirectory alone.
    fn ino(&self, number: INodeNo) -> Ino {
        if number == INodeNo::ROOT { self.root } else { ino(number) }
    }

    /// The caller of what changes nothing.
    fn question(&self, request: &Request) -> Caller {
        Caller::new(&self.runtime, request.pid(), Leaves::Asked)
    }

    /// The caller of what changes something.
    fn change(&self, request: &Request) -> Caller {
        Caller::new(&self.runtime, request.pid(), Leaves::Killed)
    }

    /// Whether the kernel passes reads and writes of a descriptor on as they are. Through its pages it would hand in an append page by page, and one from another
    /// mount could come between; besides it would put the bytes where it takes the end to be.
    fn is_direct(&self, flags: OpenFlags) -> bool {
        flags.append && (self.maps_direct || !flags.read)
    }

    /// Starts the task of a request: it awaits `work`, and gives `answer` the result.
    fn start<T, F>(&self, name: &'static str, caller: Caller, work: impl FnOnce(FileSystem) -> F + Send + 'static, answer: impl Answer<T>)
    where
        F: Future<Output = Result<T, FsError>> + Send + 'static,
        T: Send + 'static,
    {
        let (fs, begun) = (self.fs.clone(), self.runtime.now());
        self.runtime.spawn(name, async move {
            let _waiting = fs.counts().waiting.enter();
            let result = caller.wait_for(work(fs.clone())).await;
            answer(&fs, result);
            fs.note_operation(Operation::named(name), begun);
        });
    }

    /// Counts an operation that was answered there and then.
    fn note(&self, operation: Operation, begun: Moment) {
        self.fs.note_operation(operation, begun);
    }
}

fn name_of(name: &OsStr) -> Vec<u8> {
    name.as_bytes().to_vec()
}

fn new_inode(request: &Request, kind: FileKind, mode: u32, umask: u32) -> NewInode {
    let owner = Owner { uid: request.uid(), gid: request.gid() };
    NewInode { kind, mode: permissions(mode), owner, rdev: 0, symlink_target: Vec::new(), umask: permissions(umask) }
}

/// Whether a change of content takes the set-id bits: for all but root. fuser does not pass on the kernel's own answer but for writes.
fn is_unprivileged(request: &Request) -> bool {
    request.uid() != 0
}

fn lock_claim(ino: Ino, family: LockFamily, owner: LockOwner, start: u64, end: u64, mode: i32, pid: u32) -> LockClaim {
    let range = LockRange { first: start, last: end.max(start) };
    LockClaim { ino, family, owner: lock::LockOwner(owner.0), pid, range, mode: lock_call::mode_of(mode) }
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
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            InitFlags::FUSE_DONT_MASK,
            InitFlags::FUSE_POSIX_LOCKS,
            InitFlags::FUSE_FLOCK_LOCKS,
        ];
        // Each is an improvement that an older kernel may lack.
        let refused: Vec<_> = wanted.into_iter().filter(|flag| config.add_capabilities(*flag).is_err()).collect();
        if !refused.is_empty() {
            tracing::info!(?refused, "the kernel lacks some FUSE features");
        }
        self.enforces_lists = config.add_capabilities(InitFlags::FUSE_POSIX_ACL).is_ok();
        if !self.enforces_lists {
            tracing::warn!("the kernel does not enforce access lists: setting one is refused");
        }
        self.maps_direct = config.add_capabilities(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP).is_ok();
        let _ = config.set_max_write(WRITE_BYTES_MAX);
        let _ = config.set_max_readahead(WRITE_BYTES_MAX);
        let _ = config.set_max_background(BACKGROUND_REQUESTS_MAX);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let parent = self.ino(parent);
        if name.len() > NAME_BYTES_MAX {
            return reply.error(Errno::ENAMETOOLONG);
        }
        let begun = self.runtime.now();
        let known = self.fs.try_lookup(parent, name.as_bytes());
        if let Some(result) = known.filter(|result| result.as_ref().map_or(true, |found| self.kernel.may_be_told(found, parent))) {
            match result {
                Ok(attributes) => reply_found(&self.fs, &self.kernel, reply, parent, name.as_bytes(), &attributes),
                Err(error) => reply.error(errno(error)),
            }
            return self.note(Operation::Lookup, begun);
        }
        let (name, kernel) = (name_of(name), self.kernel.clone());
        let answer = found_answer(kernel.clone(), reply, parent, name.clone());
        let work = move |fs: FileSystem| async move {
            let found = fs.lookup(parent, &name).await?;
            kernel.forget_former_name(&found, parent).await;
            Ok(found)
        };
        self.start("lookup", self.question(request), work, answer);
    }

    fn getattr(&self, request: &Request, number: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        let ino = self.ino(number);
        let begun = self.runtime.now();
        if let Some(attributes) = self.fs.try_attributes(ino) {
            self.kernel.note_question(ino, begun);
            reply_attr(&self.fs, reply, Ok(attributes));
            return self.note(Operation::Getattr, begun);
        }
        let question = self.kernel.question(ino);
        let answer = move |fs: &FileSystem, result| {
            reply_attr(fs, reply, result);
            drop(question);
        };
        self.start("getattr", self.question(request), move |fs| async move { fs.attributes(ino).await }, answer);
    }

    fn setattr(
        &self,
        request: &Request,
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
        let (ino, kernel) = (self.ino(number), self.kernel.clone());
        let handle = handle.map(|handle| Handle(handle.0));
        let answer = changed_answer(reply);
        // A change of nothing is how the kernel announces a write that takes the bits.
        let is_announcement = change == AttributeChange { ctime: change.ctime, ..AttributeChange::default() };
        let is_of_owner = uid.is_some() || gid.is_some();
        let is_of_content = size.is_some() && is_unprivileged(request);
        let clears_set_id = mode.is_none() && (is_announcement || is_of_owner || is_of_content);
        let work = move |fs: FileSystem| async move {
            if clears_set_id {
                fs.clear_set_id(ino).await?;
            }
            let changed = fs.set_attributes(ino, change, handle).await?;
            kernel.settle(ino).await;
            Ok(changed)
        };
        self.start("setattr", self.change(request), work, answer);
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        let ino = self.ino(ino);
        let answer = move |_: &FileSystem, result: Result<Vec<u8>, FsError>| match result {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno(error)),
        };
        self.start("readlink", self.question(request), move |fs| async move { fs.read_link(ino).await }, answer);
    }

    fn mknod(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32, reply: ReplyEntry) {
        let Some(kind) = kind_of_mode(mode) else { return reply.error(Errno::EINVAL) };
        let (parent, name) = (self.ino(parent), name_of(name));
        let inode = NewInode { rdev, ..new_inode(request, kind, mode, umask) };
        let answer = made_answer(self.kernel.clone(), reply, parent, name.clone());
        self.start("mknod", self.change(request), move |fs| async move { fs.create(parent, &name, inode, false).await }, answer);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let (parent, name) = (self.ino(parent), name_of(name));
        let inode = new_inode(request, FileKind::Directory, mode, umask);
        let answer = made_answer(self.kernel.clone(), reply, parent, name.clone());
        self.start("mkdir", self.change(request), move |fs| async move { fs.create(parent, &name, inode, false).await }, answer);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (parent, name) = (self.ino(parent), name_of(name));
        let inode = NewInode { symlink_target: name_of(target.as_os_str()), ..new_inode(request, FileKind::Symlink, 0o777, 0) };
        let answer = made_answer(self.kernel.clone(), reply, parent, name.clone());
        self.start("symlink", self.change(request), move |fs| async move { fs.create(parent, &name, inode, false).await }, answer);
    }

    fn link(&self, request: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (ino, parent, name) = (self.ino(ino), self.ino(parent), name_of(name));
        let answer = made_answer(self.kernel.clone(), reply, parent, name.clone());
        self.start("link", self.change(request), move |fs| async move { fs.link(ino, parent, &name).await }, answer);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (parent, name) = (self.ino(parent), name_of(name));
        self.start("unlink", self.change(request), move |fs| async move { fs.unlink(parent, &name).await }, empty_answer(reply));
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (parent, name) = (self.ino(parent), name_of(name));
        self.start("rmdir", self.change(request), move |fs| async move { fs.remove_directory(parent, &name).await }, empty_answer(reply));
    }

    fn rename(
        &self,
        request: &Request,
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
        let (kernel, places) = (self.kernel.clone(), (Place::new(from, &from_name), Place::new(to, &to_name)));
        let answer = move |fs: &FileSystem, result: Result<(), FsError>| {
            let _told = (fs.telling_moved(from, to), fs.telling_moved(to, from));
            if result.is_ok() {
                kernel.note_rename(places.0, places.1, mode == RenameMode::Exchange);
            }
            empty_answer(reply)(fs, result);
        };
        self.start("rename", self.change(request), move |fs| async move { fs.rename(from, &from_name, to, &to_name, mode).await }, answer);
    }

    fn create(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, flags: i32, reply: ReplyCreate) {
        let (parent, name) = (self.ino(parent), name_of(name));
        let inode = new_inode(request, FileKind::Regular, mode, umask);
        // Another mount may have made the file since the kernel looked: without O_EXCL that file is opened.
        let or_existing = flags & libc_flags::O_EXCL == 0;
        let flags = open_flags(fuser::OpenFlags(flags));
        let (made, is_direct) = (name.clone(), self.is_direct(flags));
        let answer = move |fs: &FileSystem, result: Result<(Attributes, Opened), FsError>| match result {
            Ok((attributes, opened)) => {
                let (told, inode) = (fs.telling_names(parent), fs.telling_inode(&attributes));
                let handle = FileHandle(opened.handle.0);
                let ttl = name_ttl(fs, parent, &made, &attributes, told.ttl).min(inode.ttl);
                reply.created(&ttl, &file_attr(&attributes), GENERATION, handle, fopen_flags(&opened, is_direct));
            }
            Err(error) => reply.error(errno(error)),
        };
        self.start(
            "create",
            self.change(request),
            move |fs| async move { fs.create_open(parent, &name, inode, or_existing, flags).await },
            answer,
        );
    }

    fn open(&self, request: &Request, number: INodeNo, flags: fuser::OpenFlags, reply: ReplyOpen) {
        let (ino, flags, kernel) = (self.ino(number), open_flags(flags), self.kernel.clone());
        let is_direct = self.is_direct(flags);
        let answer = move |_: &FileSystem, result: Result<Opened, FsError>| match result {
            Ok(opened) => reply.opened(FileHandle(opened.handle.0), fopen_flags(&opened, is_direct)),
            Err(error) => reply.error(errno(error)),
        };
        let clears_set_id = flags.truncate && is_unprivileged(request);
        let work = move |fs: FileSystem| async move {
            if clears_set_id && fs.clear_set_id(ino).await? {
                // The answer to an open carries no attributes.
                kernel.forget_attributes(ino);
            }
            fs.open(ino, flags).await
        };
        if flags.truncate {
            self.start("open", self.change(request), work, answer)
        } else {
            self.start("open", self.question(request), work, answer)
        }
    }

    fn read(
        &self,
        request: &Request,
        number: INodeNo,
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
        let begun = self.runtime.now();
        if let Some(result) = self.fs.try_read(handle, offset, size as usize) {
            answer(result);
            return self.note(Operation::Read, begun);
        }
        let work = move |fs: FileSystem| async move { fs.read(handle, offset, size as usize).await };
        let (ino, kernel) = (self.ino(number), self.kernel.clone());
        let answer = move |fs: &FileSystem, result: Result<Bytes, FsError>| {
            // Nobody would tell the kernel to forget what came without a lease. A recall that begins from here on waits for these pages.
            let is_to_be_forgotten = result.is_ok() && !fs.is_leased(ino);
            answer(result);
            if is_to_be_forgotten {
                kernel.forget_when_quiet(ino);
            }
        };
        self.start("read", self.question(request), work, answer);
    }

    fn write(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: fuser::OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let is_stable = flags.0 & libc_flags::O_DSYNC != 0;
        let (handle, ino, flags) = (Handle(handle.0), self.ino(number), open_flags(flags));
        let is_write_back = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        // As fcntl has set it, which may be otherwise than the file was opened.
        let appends = flags.append && !is_write_back;
        let is_direct = self.is_direct(flags) && self.fs.appends(handle);
        // More of a call comes after a piece that is as large as they get, or, from pages, after one that ends with a page.
        let may_have_more = match is_direct {
            true => data.len() > WRITE_BYTES_MAX as usize - PAGE_BYTES,
            false => (offset + data.len() as u64).is_multiple_of(PAGE_BYTES as u64),
        };
        let at = match (appends, may_have_more) {
            (false, _) => WriteAt::Offset(offset),
            (true, false) => WriteAt::End,
            (true, true) => WriteAt::EndAndMore,
        };
        let kernel = self.kernel.clone();
        let answer = move |result: Result<Written, FsError>| match result {
            Ok(written) if is_direct || is_write_back || written.offset == offset => reply.written(written.len as u32),
            Ok(written) => {
                // Its pages have the bytes where it took the end to be.
                kernel.forget_attributes(ino);
                reply.written(written.len as u32);
                kernel.forget_pages_soon(ino);
            }
            Err(error) => reply.error(errno(error)),
        };
        let clears_set_id = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID) && self.fs.may_have_set_id(ino);
        // For a descriptor that is not kept in pages the kernel does not call fsync after a write that is to be stable.
        let is_to_be_synced = is_stable && self.fs.appends(handle);
        let begun = self.runtime.now();
        if !clears_set_id
            && !is_write_back
            && !is_to_be_synced
            && let Some(result) = self.fs.try_write_at(handle, at, data)
        {
            answer(result);
            return self.note(Operation::Write, begun);
        }
        let data = Bytes::copy_from_slice(data);
        let work = move |fs: FileSystem| async move {
            if clears_set_id {
                fs.clear_set_id(ino).await?;
            }
            if is_write_back {
                return fs.write_back(handle, offset, &data).await.map(|len| Written { offset, len });
            }
            let written = fs.write_at(handle, at, &data).await?;
            if is_to_be_synced {
                fs.fsync(handle, true).await?;
            }
            Ok(written)
        };
        self.start("write", self.change(request), work, move |_: &FileSystem, result| answer(result));
    }

    fn flush(&self, request: &Request, number: INodeNo, handle: FileHandle, owner: LockOwner, reply: ReplyEmpty) {
        let (handle, owner) = (Handle(handle.0), lock::LockOwner(owner.0));
        if self.fs.may_hold_locks(self.ino(number), LockFamily::Posix, owner) {
            let work = move |fs: FileSystem| async move { fs.flush_and_unlock(handle, owner).await };
            return self.start("flush", self.change(request), work, empty_answer(reply));
        }
        if !self.fs.needs_flush(handle) {
            return reply.ok();
        }
        self.start("flush", self.change(request), move |fs| async move { fs.flush(handle).await }, empty_answer(reply));
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

    fn fsync(&self, request: &Request, _ino: INodeNo, handle: FileHandle, data_only: bool, reply: ReplyEmpty) {
        let handle = Handle(handle.0);
        self.start("fsync", self.change(request), move |fs| async move { fs.fsync(handle, data_only).await }, empty_answer(reply));
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _flags: fuser::OpenFlags, reply: ReplyOpen) {
        let ino = self.ino(ino);
        let answer = move |fs: &FileSystem, result: Result<Handle, FsError>| match result {
            Ok(handle) => {
                let mut flags = FopenFlags::FOPEN_CACHE_DIR;
                flags.set(FopenFlags::FOPEN_KEEP_CACHE, fs.is_listing_known_to_kernel(ino));
                reply.opened(FileHandle(handle.0), flags);
            }
            Err(error) => reply.error(errno(error)),
        };
        self.start("opendir", self.question(request), move |fs| async move { fs.open_directory(ino).await }, answer);
    }

    fn readdir(&self, request: &Request, number: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let (fs, handle, ino) = (self.fs.clone(), Handle(handle.0), self.ino(number));
        let (caller, begun) = (self.question(request), self.runtime.now());
        self.runtime.spawn("readdir", async move {
            match caller.wait_for(fill(&fs, handle, ino, offset, &mut reply)).await {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(errno(error)),
            }
            fs.note_operation(Operation::Readdir, begun);
        });
    }

    fn readdirplus(&self, request: &Request, number: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let (fs, handle, ino) = (self.fs.clone(), Handle(handle.0), self.ino(number));
        let (caller, begun, kernel) = (self.question(request), self.runtime.now(), self.kernel.clone());
        self.runtime.spawn("readdirplus", async move {
            match caller.wait_for(fill_plus(&fs, &kernel, handle, ino, offset, &mut reply)).await {
                Ok(told) => {
                    reply.ok();
                    drop(told);
                }
                Err(error) => reply.error(errno(error)),
            }
            fs.note_operation(Operation::Readdirplus, begun);
        });
    }

    fn releasedir(&self, _request: &Request, _ino: INodeNo, handle: FileHandle, _flags: fuser::OpenFlags, reply: ReplyEmpty) {
        match self.fs.release_directory(Handle(handle.0)) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn fsyncdir(&self, request: &Request, ino: INodeNo, _handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        let ino = self.ino(ino);
        self.start("fsyncdir", self.change(request), move |fs| async move { fs.sync_directory(ino).await }, empty_answer(reply));
    }

    fn statfs(&self, request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let answer = move |_: &FileSystem, result: Result<Usage, FsError>| match result {
            Ok(usage) => {
                let (total, free) = (usage.total_bytes / BLOCK_BYTES, usage.free_bytes / BLOCK_BYTES);
                // Inodes are not limited: as many more as there is room for.
                let block = BLOCK_BYTES as u32;
                reply.statfs(total, free, free, usage.inodes + free, free, block, NAME_BYTES_MAX as u32, block);
            }
            Err(error) => reply.error(errno(error)),
        };
        self.start("statfs", self.question(request), |fs| async move { fs.usage().await }, answer);
    }

    fn setxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, value: &[u8], flags: i32, _position: u32, reply: ReplyEmpty) {
        let mode = match flags {
            0 => XattrMode::Set,
            libc_flags::XATTR_CREATE => XattrMode::Create,
            libc_flags::XATTR_REPLACE => XattrMode::Replace,
            _ => return reply.error(Errno::EINVAL),
        };
        let (ino, name, value) = (self.ino(ino), name_of(name), value.to_vec());
        let is_list = name == acl::ACCESS || name == acl::DEFAULT;
        if is_list && !self.enforces_lists {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let asker = (name == acl::ACCESS && is_unprivileged(request)).then(|| (self.change(request), request.gid()));
        let work = move |fs: FileSystem| async move {
            if let Some((caller, gid)) = asker
                && !caller.is_in_group(gid, fs.attributes(ino).await?.gid).await
            {
                fs.clear_set_group_id(ino).await?;
            }
            fs.set_xattr(ino, &name, &value, mode).await
        };
        self.start("setxattr", self.change(request), work, empty_answer(reply));
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let ino = self.ino(ino);
        let begun = self.runtime.now();
        let absent = without(name);
        if let Some(result) = self.fs.try_get_xattr(ino, name.as_bytes()) {
            reply_xattr(reply, size, absent, result);
            return self.note(Operation::Getxattr, begun);
        }
        let name = name_of(name);
        let answer = move |_: &FileSystem, result| reply_xattr(reply, size, absent, result);
        self.start("getxattr", self.question(request), move |fs| async move { fs.get_xattr(ino, &name).await }, answer);
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let ino = self.ino(ino);
        let begun = self.runtime.now();
        if let Some(names) = self.fs.try_list_xattr(ino) {
            reply_xattr(reply, size, Errno::NO_XATTR, Ok(joined(names)));
            return self.note(Operation::Listxattr, begun);
        }
        let answer =
            move |_: &FileSystem, result: Result<Vec<Vec<u8>>, FsError>| reply_xattr(reply, size, Errno::NO_XATTR, result.map(joined));
        self.start("listxattr", self.question(request), move |fs| async move { fs.list_xattr(ino).await }, answer);
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (ino, name) = (self.ino(ino), name_of(name));
        self.start("removexattr", self.change(request), move |fs| async move { fs.remove_xattr(ino, &name).await }, empty_answer(reply));
    }

    fn fallocate(&self, request: &Request, number: INodeNo, handle: FileHandle, offset: u64, length: u64, mode: i32, reply: ReplyEmpty) {
        let Some(mode) = allocate_mode(mode) else { return reply.error(Errno::EOPNOTSUPP) };
        let (handle, ino, clears_set_id) = (Handle(handle.0), self.ino(number), is_unprivileged(request));
        let work = move |fs: FileSystem| async move {
            if clears_set_id {
                fs.clear_set_id(ino).await?;
            }
            fs.allocate(handle, mode, offset, length).await
        };
        self.start("fallocate", self.change(request), work, empty_answer(reply));
    }

    fn lseek(&self, request: &Request, _ino: INodeNo, handle: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let target = match whence {
            libc_flags::SEEK_DATA => SeekTarget::Data,
            libc_flags::SEEK_HOLE => SeekTarget::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        let handle = Handle(handle.0);
        let answer = move |_: &FileSystem, result: Result<u64, FsError>| match result {
            Ok(found) => reply.offset(found as i64),
            Err(error) => reply.error(errno(error)),
        };
        self.start("lseek", self.question(request), move |fs| async move { fs.seek(handle, offset, target).await }, answer);
    }

    fn getlk(
        &self,
        request: &Request,
        number: INodeNo,
        _handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        mode: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        // flock(2) asks no such question.
        let claim = lock_claim(self.ino(number), LockFamily::Posix, owner, start, end, mode, pid);
        let answer = move |_: &FileSystem, result: Result<Option<LockSeen>, FsError>| match result {
            Ok(None) => reply.locked(start, end, lock_call::UNLOCKED, 0),
            Ok(Some(seen)) => reply.locked(seen.range.first, seen.range.last, lock_call::mode_number(seen.mode), seen.pid),
            Err(error) => reply.error(errno(error)),
        };
        self.start("getlk", self.question(request), move |fs| async move { fs.test_lock(claim).await }, answer);
    }

    fn setlk(
        &self,
        request: &Request,
        number: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        mode: i32,
        pid: u32,
        waits: bool,
        reply: ReplyEmpty,
    ) {
        let (handle, kernel) = (Handle(handle.0), self.kernel.clone());
        let claim = lock_claim(self.ino(number), LockFamily::Posix, owner, start, end, mode, pid);
        let (caller, ino) = (Caller::new(&self.runtime, request.pid(), Leaves::Signalled), self.ino(number));
        let work = move |fs: FileSystem| async move {
            let (family, patience) = lock_call::resolve(&fs, &caller, &claim, waits).await;
            let changed = fs.lock(handle, LockClaim { family, ..claim }, patience).await?;
            if changed {
                kernel.forget_pages_for_a_while(ino).await;
            }
            Ok(())
        };
        let leaves = Caller::new(&self.runtime, request.pid(), Leaves::Signalled);
        self.start("setlk", leaves, work, empty_answer(reply));
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _ino_in: INodeNo,
        from: FileHandle,
        from_offset: u64,
        number_out: INodeNo,
        to: FileHandle,
        to_offset: u64,
        length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (target, clears_set_id) = (self.ino(number_out), is_unprivileged(request));
        let (from, to, length) = (Handle(from.0), Handle(to.0), length.min(COPY_BYTES_MAX));
        let answer = move |_: &FileSystem, result: Result<u64, FsError>| match result {
            Ok(copied) => reply.written(copied as u32),
            Err(error) => reply.error(errno(error)),
        };
        let work = move |fs: FileSystem| async move {
            if clears_set_id {
                fs.clear_set_id(target).await?;
            }
            fs.copy_range(from, from_offset, to, to_offset, length).await
        };
        self.start("copy_file_range", self.change(request), work, answer);
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

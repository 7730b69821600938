//! Replies to the kernel: what a result becomes, and how long the kernel may believe it.

use crate::convert::file_attr;
use crate::errno::errno;
use crate::kernel::Kernel;
use cairn_client::FileSystem;
use cairn_common::attributes::Attributes;
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use fuser::{Errno, Generation, ReplyAttr, ReplyEmpty, ReplyEntry, ReplyXattr};
use std::ffi::OsStr;
use std::time::Duration;

/// Inode numbers are never used twice, so there is but one generation.
pub const GENERATION: Generation = Generation(0);

/// Replies with the result of a task.
pub trait Answer<T>: FnOnce(&FileSystem, Result<T, FsError>) + Send + 'static {}

impl<T, A: FnOnce(&FileSystem, Result<T, FsError>) + Send + 'static> Answer<T> for A {}

pub fn found_answer(kernel: Kernel, reply: ReplyEntry, parent: Ino, name: Vec<u8>) -> impl Answer<Attributes> {
    move |fs: &FileSystem, result| match result {
        Ok(attributes) => reply_found(fs, &kernel, reply, parent, &name, &attributes),
        Err(error) => reply.error(errno(error)),
    }
}

/// For what has made a name. The kernel takes the attributes over whatever it was told to forget meanwhile: so it must not believe them.
pub fn made_answer(kernel: Kernel, reply: ReplyEntry, parent: Ino, name: Vec<u8>) -> impl Answer<Attributes> {
    move |fs: &FileSystem, result: Result<Attributes, FsError>| match result {
        Ok(attributes) => {
            let told = fs.telling_names(parent);
            let name_ttl = name_ttl(fs, parent, &name, &attributes, told.ttl);
            kernel.note_place(&attributes, parent, &name);
            reply.entry_with_ttls(&Duration::ZERO, &name_ttl, &file_attr(&attributes), GENERATION);
        }
        Err(error) => reply.error(errno(error)),
    }
}

/// The same for what has changed an inode.
pub fn changed_answer(reply: ReplyAttr) -> impl Answer<Attributes> {
    move |_: &FileSystem, result: Result<Attributes, FsError>| match result {
        Ok(attributes) => reply.attr(&Duration::ZERO, &file_attr(&attributes)),
        Err(error) => reply.error(errno(error)),
    }
}

/// How long the kernel may believe a name. What is to be told may be older than the lease.
pub fn name_ttl(fs: &FileSystem, parent: Ino, name: &[u8], attributes: &Attributes, ttl: Duration) -> Duration {
    if fs.is_name_of(parent, name, attributes.ino) { ttl } else { Duration::ZERO }
}

pub fn empty_answer(reply: ReplyEmpty) -> impl Answer<()> {
    move |_: &FileSystem, result| match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

pub fn reply_found(fs: &FileSystem, kernel: &Kernel, reply: ReplyEntry, parent: Ino, name: &[u8], attributes: &Attributes) {
    kernel.note_place(attributes, parent, name);
    let (told, inode) = (fs.telling_names(parent), fs.telling_inode(attributes));
    let name_ttl = name_ttl(fs, parent, name, attributes, told.ttl);
    reply.entry_with_ttls(&inode.ttl, &name_ttl, &file_attr(attributes), GENERATION);
}

/// Also of the top of a mounted subdirectory, which the kernel calls inode 1, `stat` shows the inode's own number.
pub fn reply_attr(fs: &FileSystem, reply: ReplyAttr, result: Result<Attributes, FsError>) {
    match result {
        Ok(attributes) => {
            let telling = fs.telling_attributes(&attributes);
            reply.attr(&telling.ttl, &file_attr(&attributes));
        }
        Err(error) => reply.error(errno(error)),
    }
}

/// What is said of an attribute that an inode does not have. SELinux labels no file of a FUSE mount, and says that there are no labels here; so do we to programs that ask
/// without it. `ls -l` asks for that label first of all, with a question for each file unless it hears that.
pub fn without(name: &OsStr) -> Errno {
    if name == "security.selinux" { Errno::EOPNOTSUPP } else { Errno::NO_XATTR }
}

pub fn reply_xattr(reply: ReplyXattr, size: u32, absent: Errno, result: Result<Vec<u8>, FsError>) {
    match result {
        Err(FsError::NoAttribute) => reply.error(absent),
        Ok(data) if size == 0 => reply.size(data.len() as u32),
        Ok(data) if data.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(data) => reply.data(&data),
        Err(error) => reply.error(errno(error)),
    }
}

/// As listxattr(2) wants them: each name ends with a NUL.
pub fn joined(names: Vec<Vec<u8>>) -> Vec<u8> {
    names.into_iter().flat_map(|name| name.into_iter().chain([0])).collect()
}

//! The user's own files: what is copied from and to. They belong to no store of ours, so they are reached directly and not through the runtime's
//! disk. Everything here blocks: it is called on threads for blocking work.

mod inode;
mod names;
mod reading;
mod writing;
mod xattrs;

pub use inode::{inode_at, inode_of};
pub use names::{
    entries, make_directories, remove, remove_empty_directory, rename, set_mode, set_times, symlink, symlink_target, sync_directory,
};
pub use reading::Source;
pub use writing::Unfinished;
pub use xattrs::{drop_xattrs, has_xattrs, read_xattrs, write_xattrs};

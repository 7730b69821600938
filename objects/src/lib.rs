//! Files in CairnFS as objects: buckets and keys, copied, listed and compared without a mount. The user commands of `cairn` stand on it.
//!
//! | module | what it does |
//! |---|---|
//! | `place` | `cairn://bucket/key`, a local path, or a stream |
//! | `filter` | `--include` and `--exclude` |
//! | `caller` | whose files are made, and what the modes of files let this user do |
//! | `store` | paths to inodes; making and removing what they name |
//! | `content` | the bytes of an object, in order |
//! | `walk` | trees, one page of a directory at a time |
//! | `row` | how an entry is printed, for people and for machines |
//! | `local` | the user's own files |
//! | `transfer` | what is to be copied (`plan`), and how it gets there (`engine`) |
//!
//! Whatever goes wrong is a [`Failure`]: the thing, and a sentence. Nothing here prints.

pub mod caller;
pub mod content;
pub mod failure;
pub mod filter;
pub mod local;
pub mod place;
pub mod row;
pub mod size;
pub mod store;
pub mod transfer;
pub mod walk;

pub use caller::Caller;
pub use failure::{Failure, Reason};
pub use place::{Place, RemotePath};
pub use store::Store;

//! The kernel adapter: decodes what the kernel asks, calls the client library, replies. No policy lives here.
//!
//! Requests arrive on a few threads. What the library can answer from memory is answered there and then; everything else
//! becomes a task of its own, so that a slow or stuck request never holds up another.

mod adapter;
mod answer;
mod caller;
mod convert;
mod directory;
mod errno;
mod flags;
mod kernel;
mod lock_call;
mod mount;
mod options;
mod places;
mod questions;

pub use mount::{MountError, Mounted, Unmounting, mount, unmount};
pub use options::{MountOptions, OptionError};

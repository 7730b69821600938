//! What Linux answers to random sequences of file-system calls, and whether CairnFS answers the same.
//!
//! - [`operation`]: the calls, on a few short paths, so that they meet each other;
//! - [`outcome`]: what a call answers, and what a whole tree looks like;
//! - [`tree`]: the model, a file system as it is described in manual pages, in memory;
//! - [`strategy`]: random sequences, which shrink;
//! - [`subject`]: whatever can live through a sequence: the model, directories of this machine ([`kernel`]), the client library ([`library`]);
//! - [`trial`]: many sequences, and the shortest one that gives a difference.
//!
//! The model is right if a local directory of Linux agrees with it; then it may judge the library and the mount.

pub mod kernel;
pub mod library;
pub mod operation;
pub mod outcome;
pub mod strategy;
pub mod subject;
pub mod tree;
pub mod trial;

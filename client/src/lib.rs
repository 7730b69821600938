//! CairnFS as a library: sessions, caches, readers and writers. The mount, the command line and any gateway stand on it.

pub mod data;
pub mod ports;

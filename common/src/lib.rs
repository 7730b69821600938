//! The vocabulary of CairnFS, and the arithmetic that needs no machine: ids and units, the hash tree, erasure coding,
//! placement, and the messages that the roles exchange. Nothing here reads a clock, a socket, a disk or a random number.

pub mod acl;
pub mod attributes;
pub mod bounded;
pub mod buffer;
pub mod codec;
pub mod collections;
pub mod erasure;
pub mod error;
pub mod extent;
pub mod hash_tree;
pub mod ids;
pub mod limits;
pub mod lock;
pub mod map;
pub mod metrics;
pub mod placement;
pub mod planted;
pub mod scheme;
pub mod time;
pub mod wire;

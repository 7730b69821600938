//! Tests of CairnFS as a whole.
//!
//! - [`cluster`]: the real master, chunkservers and clients in one simulated world;
//! - [`model`]: a file system small enough to be read in one sitting, which says what is right;
//! - [`workload`]: random operations on both.
//!
//! End-to-end tests on real processes and mounts are in `tests/e2e`, run by `scripts/end-to-end`.

pub mod cluster;
pub mod model;
pub mod workload;

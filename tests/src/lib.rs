//! Tests of CairnFS as a whole.
//!
//! - [`cluster`]: the real master, chunkservers and clients in one simulated world;
//! - [`simulation`]: a seed's world from its beginning to its end, with everything that breaks in it;
//! - [`reference`]: what files and names may look like, given what was promised and what broke;
//! - [`checkers`]: one promise, one file;
//! - [`crash_points`]: a loss of power at every operation of a disk;
//! - [`coherence`]: clients that use the same files at once, and whether they see what the others have done;
//! - [`deletion_race`]: content that is written again while its chunk is collected;
//! - [`fuzz`]: spoiled bytes for every decoder;
//! - [`posix`]: random system calls, compared with what Linux would answer, through the library and through a mount (`posix-model`);
//! - [`operator`]: whoever asks the master how things are;
//! - [`report`]: many seeds, and what became of them (`simulate`);
//! - [`model`] and [`workload`]: the same in small, for tests that break one thing.
//!
//! End-to-end tests on real processes and mounts are in `tests/e2e`, run by `scripts/end-to-end`.

pub mod checkers;
pub mod cluster;
pub mod coherence;
pub mod crash_points;
pub mod deletion_race;
pub mod fuzz;
pub mod model;
pub mod operator;
pub mod posix;
pub mod reference;
pub mod report;
pub mod simulation;
pub mod workload;

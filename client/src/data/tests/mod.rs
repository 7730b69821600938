//! The data path against fakes of the master and the chunkservers, in the simulated world.

mod cluster;
mod compacting;
mod fake_master;
mod fake_targets;
mod faults;
mod model;
mod packing;
mod pools;
mod promises;
mod reading;
mod sessions;

//! Tests of the simulated world itself.

mod chatter;
mod determinism;
mod disk;
mod durability;
mod network;
mod scheduling;

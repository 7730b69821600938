//! Worlds in which several clients use the same few files and names at once, while links are cut, and clients and the master are killed: whatever one
//! client's finished call did, the next call of every other client sees.
//!
//! [`world`] is the cluster, its clients and its weather; [`register`] judges what the clients saw. Each thing that calls can change (the content of a
//! file, its mode, what a name leads to) is a register: every change gives it a value that it never had before, so that what a call sees tells
//! which change it saw.

pub mod register;
pub mod world;

pub use world::{Outcome, live_through};

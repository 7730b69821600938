//! A target on the simulated disk. `basic`: what each call does. `recovery`: what a start finds and does. `faults`: full and
//! failing disks. `listing`: what healing asks. `model`: random histories with crashes against a reference.

mod basic;
mod faults;
pub mod fixture;
mod listing;
mod model;
mod recovery;

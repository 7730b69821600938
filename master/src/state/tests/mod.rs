//! Tests of the state machine: against a reference model, and case by case.

mod acls;
mod cases;
mod cluster;
mod collecting;
mod compacting;
mod exactly_once;
mod extents;
mod model;
mod pools;
mod random;
pub(crate) mod world;

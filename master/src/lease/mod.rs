//! Who may believe what: the table of leases. Pure: no clock, no messages; the service acts on what it says, and the checkers of the simulated world
//! hold clients to it.
//!
//! docs/leases.md has the states and the reasons.

mod table;
#[cfg(test)]
mod tests;

pub use table::{LeaseTable, Obstacle, Use};

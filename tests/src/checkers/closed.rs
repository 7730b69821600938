//! "close(2) returns: chunks are with all reachable chunkservers and the extents are with the master; survives any process crash
//! and the loss of any m chunkservers" (design section 5).

use crate::reference::file::Strength;
use crate::simulation::history::History;
use crate::simulation::inspection::Findings;

pub fn check(_: &History, findings: &Findings) -> Vec<String> {
    let broken = findings.mismatches.iter().filter(|(_, mismatch)| mismatch.strength == Strength::Closed);
    broken.map(|(path, mismatch)| format!("{path}: {mismatch:?}")).collect()
}

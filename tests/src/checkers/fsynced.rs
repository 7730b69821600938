//! "fsync(2), O_SYNC, msync: shards are on stable storage on the chunkservers and the extents in the master's synced log; survives
//! power loss of everything" (design section 5). Also: nothing is ever invented; a byte is what somebody wrote there, or zero.

use crate::reference::file::Strength;
use crate::simulation::history::History;
use crate::simulation::inspection::Findings;

pub fn check(_: &History, findings: &Findings) -> Vec<String> {
    let broken = findings.mismatches.iter().filter(|(_, mismatch)| mismatch.strength != Strength::Closed);
    broken.map(|(path, mismatch)| format!("{path}: {mismatch:?}")).collect()
}

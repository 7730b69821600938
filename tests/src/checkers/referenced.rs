//! Nothing that a file refers to is deleted (design sections 4 and 8): every chunk of the table has enough good shards to be read, unless
//! its content was never promised to survive a blackout.

use crate::simulation::history::History;
use crate::simulation::inspection::Findings;

pub fn check(_: &History, findings: &Findings) -> Vec<String> {
    if findings.had_blackout {
        // What was synced is read byte by byte by `fsynced`; the rest may be gone.
        return Vec::new();
    }
    let lost = findings.chunks.iter().filter(|chunk| chunk.references > 0 && chunk.good() < chunk.needed());
    lost.map(|chunk| format!("chunk {chunk} has too few good shards to be read")).collect()
}

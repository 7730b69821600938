//! Nothing stays that no file refers to (design section 8): after the grace period and a round of the collector the table has no dead
//! chunks and no deletions to be done. Shards that were put and never committed stay until groups are compared with the master; so here
//! a chunkserver may have more than the table names, but, where nothing has ever failed, not fewer.

use crate::simulation::history::History;
use crate::simulation::inspection::Findings;

pub fn check(_: &History, findings: &Findings) -> Vec<String> {
    let mut broken = Vec::new();
    if findings.is_collected {
        let dead = findings.chunks.iter().filter(|chunk| chunk.references == 0);
        broken.extend(dead.map(|chunk| format!("chunk {chunk} is dead, and still there after the grace period")));
        broken.extend(findings.queued_deletions.iter().map(|chunk| format!("the deletion of {chunk} is still to be done")));
    }
    if findings.was_calm {
        for (target, found) in &findings.shards_stored {
            let named = findings.chunks.iter().flat_map(|chunk| &chunk.shards).filter(|shard| shard.holder == Some(*target)).count() as u64;
            if named > *found {
                broken.push(format!("{target} stores {found} shards, and the table names {named}"));
            }
        }
    }
    broken
}

//! "m chunkservers of a group are lost: reads and writes go on (degraded); repair starts by itself" (design section 5): after healing each
//! chunk has all shards of its scheme. Until chunkservers repair, those that were allowed to harm what they hold are excused.

use crate::simulation::history::History;
use crate::simulation::inspection::Findings;

pub fn check(_: &History, findings: &Findings) -> Vec<String> {
    if findings.had_blackout {
        return Vec::new();
    }
    let mut broken = Vec::new();
    for chunk in findings.chunks.iter().filter(|chunk| chunk.references > 0) {
        for shard in &chunk.shards {
            let is_excused = shard.holder.is_some_and(|holder| findings.harmed.contains(&holder));
            if !shard.is_good && !is_excused {
                broken.push(format!("shard {} of chunk {chunk} is missing or bad at {:?}: {}", shard.index, shard.holder, shard.answer));
            }
        }
    }
    broken
}

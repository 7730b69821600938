//! Work of a fixed size for a stop-watch outside: `time target/release/examples/coding_speed encode 4+2 4000`.
//! Prints how many bytes of chunks went through, so that bytes over seconds is the speed of one core.

use cairn_common::{erasure, hash_tree, ids::TargetId, placement, scheme::Scheme};
use std::hint::black_box;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, what, scheme, rounds] = &arguments[..] else {
        eprintln!("usage: coding_speed encode|rebuild|hash|id|verify|place K+M ROUNDS");
        std::process::exit(2);
    };
    let scheme: Scheme = scheme.parse().expect("a scheme such as 4+2");
    let rounds: usize = rounds.parse().expect("a number of rounds");
    let chunk: Vec<u8> = (0..251).cycle().take(scheme.chunk_bytes_max()).collect();
    let layout = scheme.layout(chunk.len() as u32);
    let shards: Vec<&[u8]> = chunk.chunks(layout.shard_bytes() as usize).collect();
    let parity = erasure::encode(layout, &chunk);
    let sources: Vec<(u8, &[u8])> = (1..).zip(shards[1..].iter().copied().chain(parity.iter().map(|shard| &shard[..]))).collect();
    let blocks = hash_tree::data_shard_tree(layout, 0, shards[0]).blocks;
    let targets: Vec<_> =
        (0..100).map(|id| placement::PlacementTarget { id: TargetId(id), weight: 1, domains: vec![format!("host{id}")] }).collect();
    for _ in 0..rounds {
        match what.as_str() {
            "encode" => drop(black_box(erasure::encode(layout, &chunk))),
            "rebuild" => drop(black_box(erasure::rebuild(layout, 0, 0, layout.shard_bytes(), &sources).expect("k shards are there"))),
            "hash" => drop(black_box(hash_tree::all_blocks(layout, &chunk))),
            "id" => drop(black_box(hash_tree::chunk_id(&chunk))),
            "verify" => black_box(hash_tree::verify_blocks(layout, 0, &blocks, 0, shards[0])).expect("the blocks are right"),
            "place" => drop(black_box(placement::place(&targets, scheme.shards(), 12, &[], 1))),
            other => panic!("{other} is no kind of work"),
        }
    }
    let each = if what == "verify" { shards[0].len() } else { chunk.len() };
    println!("{} bytes", each * rounds);
}

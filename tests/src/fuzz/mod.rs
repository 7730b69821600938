//! Spoiled bytes for every decoder of what comes from a disk or a socket: none may panic, and none may take memory out of proportion to what it
//! was given.

pub mod examples;
pub mod mutator;
pub mod stored;

use cairn_chunkserver::segment::header::SegmentHeader;
use cairn_chunkserver::segment::record::{Record as SegmentRecord, RecordShape};
use cairn_common::codec::decode;
use cairn_common::hash_tree;
use cairn_common::map::ClusterMap;
use cairn_common::wire::chunkserver::{ChunkserverAnswer, ChunkserverRequest, ShardProof};
use cairn_common::wire::lease::{ClientRequest, Grant};
use cairn_common::wire::master::{MasterAnswer, MasterRequest};
use cairn_master::keys::{self, Record};
use cairn_master::state::Stamped;
use cairn_master::state::record::{
    ChunkRecord, ClusterRecord, Counters, Dentry, ExtentRecord, GroupRecord, Inode, PoolRecord, ServerRecord, SessionRecord, StoredChunk,
    StoredResult, TargetRecord,
};
use cairn_runtime::pki::{Token, names};

/// A decoder, and good input for it.
pub struct FuzzTarget {
    pub name: &'static str,
    pub examples: fn() -> Vec<Vec<u8>>,
    /// Decodes; what comes of it does not matter.
    pub decode: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[FuzzTarget] = &[
    FuzzTarget {
        name: "requests to a master",
        examples: examples::master_requests,
        decode: |bytes| drop(decode::<MasterRequest>("", bytes)),
    },
    FuzzTarget { name: "answers of a master", examples: examples::master_answers, decode: |bytes| drop(decode::<MasterAnswer>("", bytes)) },
    FuzzTarget { name: "leases", examples: examples::grants, decode: |bytes| drop(decode::<Vec<Grant>>("", bytes)) },
    FuzzTarget { name: "recalls", examples: examples::recalls, decode: |bytes| drop(decode::<ClientRequest>("", bytes)) },
    FuzzTarget { name: "cluster maps", examples: examples::cluster_maps, decode: |bytes| drop(decode::<ClusterMap>("", bytes)) },
    FuzzTarget { name: "requests to a chunkserver", examples: examples::chunkserver_requests, decode: chunkserver_request },
    FuzzTarget {
        name: "answers of a chunkserver",
        examples: examples::chunkserver_answers,
        decode: |bytes| drop(decode::<ChunkserverAnswer>("", bytes)),
    },
    FuzzTarget { name: "proofs of shards", examples: examples::proofs, decode: proof },
    FuzzTarget { name: "commands of the log", examples: examples::commands, decode: |bytes| drop(decode::<Stamped>("", bytes)) },
    FuzzTarget { name: "rows of the tables", examples: examples::rows, decode: row },
    FuzzTarget { name: "heads of segments", examples: examples::segment_headers, decode: |bytes| _ = SegmentHeader::decode(bytes) },
    FuzzTarget { name: "records of segments", examples: examples::segment_records, decode: segment_record },
    FuzzTarget { name: "join tokens", examples: examples::tokens, decode: token },
    FuzzTarget { name: "names in certificates", examples: examples::certificates, decode: |bytes| drop(names::member(bytes)) },
];

/// A put is decoded and then checked, as its server does before it believes anything.
fn chunkserver_request(bytes: &[u8]) {
    if let Ok(ChunkserverRequest::Put { header, data_blocks, .. }) = decode::<ChunkserverRequest>("", bytes) {
        // Any answer is good.
        let _ = hash_tree::verify_header(&header).is_ok();
        drop(data_blocks);
    }
}

fn proof(bytes: &[u8]) {
    if let Ok(proof) = decode::<ShardProof>("", bytes) {
        let (layout, chunk) = examples::proven();
        // Any answer is good.
        let _ = hash_tree::verify_proof(layout, chunk, 0, &proof).is_ok();
    }
}

fn row(bytes: &[u8]) {
    let parsers: [fn(&[u8]) -> bool; 6] = [
        |key| keys::parse_inode(key).is_ok(),
        |key| keys::parse_dentry(key).is_ok(),
        |key| keys::parse_directory_index(key).is_ok(),
        |key| keys::parse_extent(key).is_ok(),
        |key| keys::parse_dead_chunk(key).is_ok(),
        |key| keys::parse_result(key).is_ok(),
    ];
    parsers.iter().for_each(|parse| _ = parse(bytes));
    let decoders: [fn(&[u8]) -> bool; 13] = [
        is_row::<Inode>,
        is_row::<Dentry>,
        is_row::<ExtentRecord>,
        is_row::<StoredChunk>,
        is_row::<ChunkRecord>,
        is_row::<SessionRecord>,
        is_row::<StoredResult>,
        is_row::<ServerRecord>,
        is_row::<TargetRecord>,
        is_row::<PoolRecord>,
        is_row::<GroupRecord>,
        is_row::<ClusterRecord>,
        is_row::<Counters>,
    ];
    decoders.iter().for_each(|decode| _ = decode(bytes));
}

fn is_row<R: Record>(bytes: &[u8]) -> bool {
    R::decode(bytes).is_ok()
}

fn segment_record(bytes: &[u8]) {
    if let Ok(shape) = RecordShape::peek(bytes, examples::stand()) {
        let _ = SegmentRecord::decode_head(bytes, &shape).is_ok();
    }
}

fn token(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<Token>().is_ok();
    }
}

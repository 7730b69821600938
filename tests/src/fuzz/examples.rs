//! Good bytes of every kind, to be spoiled.

use cairn_chunkserver::segment::header::SegmentHeader;
use cairn_chunkserver::segment::record::{KeyTicket, Record as SegmentRecord, ShardMeta, Stand};
use cairn_chunkserver::segment::{Position, SegmentNumber, TargetUuid};
use cairn_common::attributes::{AttributeChange, Attributes, DirectoryEntry, FileKind, NewInode, Owner};
use cairn_common::codec::encode;
use cairn_common::error::FsError;
use cairn_common::extent::{ChunkInfo, Extent, ExtentPage, NewChunk, SlotMask};
use cairn_common::hash_tree;
use cairn_common::ids::{ChunkId, DirCookie, Hash, Incarnation, Ino, LogIndex, MapEpoch, PoolId, Sequence, ServerId, SessionId, TargetId};
use cairn_common::lock::{LockClaim, LockFamily, LockMode, LockOwner, LockRange};
use cairn_common::map::{ClusterMap, Group, Pool, Slot, Target, TargetState};
use cairn_common::scheme::{ChunkLayout, Scheme};
use cairn_common::time::Timestamp;
use cairn_common::wire::check::CheckWork;
use cairn_common::wire::chunkserver::{
    ChunkserverAnswer, ChunkserverError, ChunkserverReply, ChunkserverRequest, ShardHeader, ShardKey, ShardProof,
};
use cairn_common::wire::lease::{ClientRequest, Grant, LeaseMode, RecalledLease};
use cairn_common::wire::load::Load;
use cairn_common::wire::master::{
    Access, CompactionWork, FileCommit, FileCompaction, FileExtents, LockCall, LockPatience, MasterAnswer, MasterError, MasterReply,
    MasterRequest, Mutation, MutationReply, RenameMode, Role, SequenceRange,
};
use cairn_master::keys::{self, Record};
use cairn_master::state::command::Mend;
use cairn_master::state::record::{ChunkRecord, Counters, ExtentRecord, Rules, Span, StoredChunk, Window};
use cairn_master::state::{Command, Stamped};
use cairn_runtime::pki::{Authority, Token, generate_key};
use std::collections::BTreeMap;
use std::net::SocketAddr;

fn attributes() -> Attributes {
    Attributes {
        ino: Ino(77),
        kind: FileKind::Regular,
        mode: 0o644,
        uid: 1000,
        gid: 1000,
        nlink: 1,
        rdev: 0,
        size: 12_345,
        allocated: 4_096,
        atime: Timestamp::from_nanos(1),
        mtime: Timestamp::from_nanos(2),
        ctime: Timestamp::from_nanos(3),
        btime: Timestamp::from_nanos(4),
        version: 9,
        has_xattrs: false,
        pool: None,
    }
}

fn chunk() -> ChunkInfo {
    ChunkInfo {
        id: ChunkId([5; 32]),
        bytes: 300_000,
        pool: PoolId(1),
        scheme: Scheme::new(4, 2).expect("a scheme"),
        slots: SlotMask::from_slots(0..6),
    }
}

fn extents() -> Vec<Extent> {
    (0..5).map(|at| Extent { file_offset: at * 1000, bytes: 900, chunk: chunk().id, chunk_offset: at as u32 * 900 }).collect()
}

fn commit() -> Mutation {
    let new = NewChunk { info: chunk(), epoch: MapEpoch(3), ticket: Timestamp::from_nanos(5) };
    let file = FileCommit { ino: Ino(77), extents: extents(), size_at_least: 10_000, mtime: Timestamp::from_nanos(6) };
    Mutation::Commit { files: vec![file], chunks: vec![new] }
}

fn mutations() -> Vec<Mutation> {
    let owner = Owner { uid: 1, gid: 2 };
    let inode = NewInode { kind: FileKind::Symlink, mode: 0o777, owner, rdev: 0, symlink_target: b"elsewhere".to_vec(), umask: 0o22 };
    let change = AttributeChange { size: Some(10), mode: Some(0o600), ..AttributeChange::default() };
    vec![
        commit(),
        Mutation::Compact {
            files: vec![FileCompaction { ino: Ino(7), old: extents(), new: extents() }],
            chunks: vec![NewChunk { info: chunk(), epoch: MapEpoch(3), ticket: Timestamp::from_nanos(5) }],
        },
        Mutation::Create { parent: Ino::ROOT, name: b"name".to_vec(), inode, open: true, or_existing: true },
        Mutation::Rename {
            from_parent: Ino::ROOT,
            from_name: b"old".to_vec(),
            to_parent: Ino(2),
            to_name: b"new".to_vec(),
            mode: RenameMode::Exchange,
        },
        Mutation::SetAttributes { ino: Ino(7), change },
        Mutation::PunchHole { ino: Ino(7), offset: 1, bytes: 2, extend: true },
        Mutation::NoteAccess { accesses: vec![Access { ino: Ino(7), at: Timestamp::from_nanos(8) }; 3] },
        Mutation::SetPolicy { ino: Ino(7), pool: Some(PoolId(2)) },
        Mutation::CommitSynced { files: Vec::new(), chunks: Vec::new() },
    ]
}

fn lock_claim() -> LockClaim {
    let range = LockRange { first: 10, last: 4_000_000_000 };
    let mode = Some(LockMode::Exclusive);
    LockClaim { ino: Ino(7), family: LockFamily::Posix, owner: LockOwner(0x1234_5678_9abc), pid: 4_321, range, mode }
}

pub fn master_requests() -> Vec<Vec<u8>> {
    let mutate = |mutation| MasterRequest::Mutate {
        session: SessionId(3),
        sequence: Sequence(4),
        acknowledged: Sequence(2),
        durable: true,
        mutation,
    };
    let mut requests: Vec<MasterRequest> = mutations().into_iter().map(mutate).collect();
    requests.extend([
        MasterRequest::OpenSession {
            previous: Some(SessionId(1)),
            description: "host:/mnt".to_owned(),
            open: vec![Ino(5), Ino(6)],
            answered: vec![SequenceRange { first: Sequence(3), last: Sequence(9) }],
            writing: vec![Ino(5)],
        },
        MasterRequest::Lease { session: SessionId(3), ino: Ino(5), wanted: LeaseMode::Write },
        MasterRequest::ReadDirectory { ino: Ino::ROOT, after: DirCookie(4), limit: 100, with_attributes: true },
        MasterRequest::Join { secret: vec![1; 16], role: Role::Client, public_key: vec![2; 90] },
        MasterRequest::Heartbeat {
            server: ServerId(1),
            incarnation: Incarnation(2),
            known: MapEpoch(3),
            targets: Vec::new(),
            load: Box::default(),
        },
        MasterRequest::EndSession { session: SessionId(4) },
        MasterRequest::CreatePool {
            name: "fast".to_owned(),
            scheme: chunk().scheme,
            labels: BTreeMap::from([("media".to_owned(), "ssd".to_owned())]),
            insist: true,
        },
        MasterRequest::ReportLoad { load: Box::new(Load { queue: 3, ..Load::default() }) },
        MasterRequest::BeginCheck { work: CheckWork::Users { chunks: vec![shard_header().key.chunk; 3] } },
        MasterRequest::Lock {
            session: SessionId(1),
            order: Sequence(5),
            acknowledged: Sequence(4),
            call: LockCall::Set { claim: lock_claim(), patience: LockPatience::Waits },
        },
        MasterRequest::AssertLocks { session: SessionId(1), claims: vec![lock_claim(); 3], last: true },
    ]);
    requests.iter().map(encode).collect()
}

pub fn master_answers() -> Vec<Vec<u8>> {
    let page = ExtentPage { extents: extents(), chunks: vec![chunk()], more_from: Some(5_000) };
    let entry = DirectoryEntry {
        name: b"entry".to_vec(),
        ino: Ino(8),
        kind: FileKind::Directory,
        cookie: DirCookie(1),
        attributes: Some(attributes()),
    };
    let answers: Vec<MasterAnswer> = vec![
        Ok(MasterReply::Opened { attributes: attributes(), extents: page }),
        Ok(MasterReply::Directory { entries: vec![entry; 5], end: false }),
        Ok(MasterReply::LocksAsserted { refused: vec![lock_claim(); 2] }),
        Ok(MasterReply::Mutated(MutationReply::Committed(vec![Ok(attributes()), Err(FsError::Stale)]))),
        Ok(MasterReply::Map(Some(cluster_map()))),
        Ok(MasterReply::CompactionWork(Some(CompactionWork {
            pool: PoolId(1),
            files: vec![FileExtents { ino: Ino(7), extents: extents() }; 2],
            chunks: vec![chunk()],
        }))),
        Err(MasterError::Malformed("reason".to_owned())),
        Err(MasterError::PutElsewhere { chunks: vec![(chunk().id, PoolId(2))] }),
    ];
    answers.iter().map(encode).collect()
}

fn cluster_map() -> ClusterMap {
    let slot = Slot { holder: Some(TargetId(1)), previous: None };
    let target = Target {
        id: TargetId(1),
        server: ServerId(1),
        address: SocketAddr::from(([10, 0, 0, 1], 7450)),
        state: TargetState::Serving,
        full: false,
        capacity_bytes: 1 << 40,
        labels: BTreeMap::from([("rack".to_owned(), "a".to_owned())]),
    };
    let pool = Pool {
        id: PoolId(1),
        name: "default".to_owned(),
        scheme: chunk().scheme,
        prefix_bits: 1,
        groups: vec![Group { slots: vec![slot; 6] }; 2],
        labels: BTreeMap::from([("media".to_owned(), "ssd".to_owned())]),
    };
    ClusterMap { epoch: MapEpoch(4), pools: vec![pool], targets: vec![target] }
}

pub fn grants() -> Vec<Vec<u8>> {
    let grant = |number| Grant { ino: Ino(number), mode: if number % 2 == 0 { LeaseMode::Read } else { LeaseMode::Write } };
    vec![encode(&(1..9).map(grant).collect::<Vec<_>>())]
}

pub fn recalls() -> Vec<Vec<u8>> {
    let lease = |number| RecalledLease { ino: Ino(number), keep: (number % 2 == 0).then_some(LeaseMode::Read) };
    vec![encode(&ClientRequest::Recall { number: 7, leases: (1..9).map(lease).collect() })]
}

pub fn cluster_maps() -> Vec<Vec<u8>> {
    vec![encode(&cluster_map())]
}

fn shard_header() -> ShardHeader {
    let key = ShardKey { chunk: chunk().id, scheme: chunk().scheme, index: 4 };
    ShardHeader { key, chunk_bytes: 300_000, data_hashes: vec![Hash([1; 32]); 4], parity_hashes: vec![Hash([2; 32]); 2] }
}

pub fn chunkserver_requests() -> Vec<Vec<u8>> {
    let requests = [
        ChunkserverRequest::Put {
            target: TargetId(1),
            epoch: MapEpoch(1),
            ticket: Timestamp::from_nanos(1),
            header: shard_header(),
            data_blocks: vec![Hash([3; 32]); 10],
            sync: true,
        },
        ChunkserverRequest::Get { target: TargetId(1), key: shard_header().key, offset: 4096, bytes: 8192, with_proof: true },
        ChunkserverRequest::Check { target: TargetId(1), keys: vec![shard_header().key; 7] },
        ChunkserverRequest::Examine { target: TargetId(1), keys: vec![shard_header().key; 5] },
    ];
    requests.iter().map(encode).collect()
}

fn proven_bytes() -> Vec<u8> {
    crate::reference::content::stream(1, 0, 300_000)
}

/// A chunk of which `proofs` has the proof.
pub fn proven() -> (ChunkLayout, ChunkId) {
    static CHUNK: std::sync::OnceLock<ChunkId> = std::sync::OnceLock::new();
    (chunk().scheme.layout(300_000), *CHUNK.get_or_init(|| hash_tree::chunk_id(&proven_bytes())))
}

pub fn proofs() -> Vec<Vec<u8>> {
    let trees = hash_tree::all_blocks(proven().0, &proven_bytes());
    let data_hashes = trees.iter().map(|tree| tree.hash).collect();
    vec![encode(&ShardProof { chunk_bytes: 300_000, data_hashes, blocks: trees[0].blocks.clone() })]
}

pub fn chunkserver_answers() -> Vec<Vec<u8>> {
    let proof = ShardProof { chunk_bytes: 300_000, data_hashes: vec![Hash([1; 32]); 4], blocks: vec![Hash([2; 32]); 32] };
    let answers: [ChunkserverAnswer; 3] = [
        Ok(ChunkserverReply::Data { proof: Some(proof) }),
        Ok(ChunkserverReply::Checked { present: vec![true, false] }),
        Err(ChunkserverError::Corrupt(shard_header().key)),
    ];
    answers.iter().map(encode).collect()
}

pub fn commands() -> Vec<Vec<u8>> {
    let mutate = |mutation| Command::Mutate {
        session: SessionId(1),
        sequence: Sequence(2),
        acknowledged: Sequence(1),
        holders: vec![SessionId(1)],
        mutation,
    };
    let mends = vec![
        Mend::Links { ino: Ino(5), by: -3 },
        Mend::DropEntry { parent: Ino(5), name: b"gone".to_vec() },
        Mend::Widen { chunk: shard_header().key.chunk, span: Span::EVERYTHING },
    ];
    let mend = Command::Mend { seen: LogIndex(7), batch: 1, mends };
    let commands = mutations().into_iter().map(mutate).chain([mend]);
    commands.map(|command| encode(&Stamped { at: Timestamp::from_nanos(9), command })).collect()
}

pub fn rows() -> Vec<Vec<u8>> {
    let stored = StoredChunk::of(&chunk());
    let counters = Counters { next_ino: 10, next_session: 2, inodes: 3 };
    vec![
        ChunkRecord { stored, references: 3, live_bytes: 5, died: None, named: Span::EVERYTHING, sparse: Some(Timestamp::EPOCH) }.encode(),
        Window { extents: 200, floor: 3, due: Some(Timestamp::EPOCH) }.encode(),
        Rules::default().encode(),
        stored.encode(),
        ExtentRecord::of(&extents()[0]).encode(),
        counters.encode(),
        keys::dentry(Ino::ROOT, b"name").as_ref().to_vec(),
        keys::extent(Ino(7), 4096).as_ref().to_vec(),
    ]
}

/// Where the example records stand.
pub fn stand() -> Stand {
    Stand { uuid: TargetUuid([7; 16]), at: Position { segment: SegmentNumber(3), offset: 4096 } }
}

pub fn segment_headers() -> Vec<Vec<u8>> {
    let previous = Position { segment: SegmentNumber(2), offset: 8192 };
    vec![SegmentHeader { uuid: TargetUuid([7; 16]), number: SegmentNumber(3), previous }.encode()]
}

pub fn segment_records() -> Vec<Vec<u8>> {
    let shard =
        ShardMeta { header: shard_header(), blocks: vec![Hash([3; 32]); 20], ticket: Timestamp::from_nanos(4), payload_bytes: 70_000 };
    let touch = KeyTicket { key: shard_header().key, ticket: Timestamp::from_nanos(5) };
    let records = [SegmentRecord::Shard(shard), SegmentRecord::Touches(vec![touch; 3]), SegmentRecord::Tombstones(vec![touch.key; 2])];
    records.iter().map(|record| record.encode_head(stand())).collect()
}

pub fn tokens() -> Vec<Vec<u8>> {
    let token = Token { fingerprint: [1; 32], secret: [2; 16], role: Role::Chunkserver };
    vec![token.to_string().into_bytes()]
}

pub fn certificates() -> Vec<Vec<u8>> {
    let now = Timestamp::from_parts(1_800_000_000, 0);
    let authority = Authority::create(now).expect("an authority can be made");
    let key = generate_key().expect("a key can be made");
    let certificate = authority.issue(Role::Client, "node-7", &key.public_key_spki_der, now).expect("a certificate can be issued");
    vec![certificate, authority.certificate_der().to_vec()]
}

//! Messages between the roles. A message is a head (postcard) and a body (raw bytes: the content of one shard range).
//! docs/wire-protocol.md describes the frames. Every head decodes under `limits::MESSAGE_HEAD_BYTES_MAX`.

pub mod check;
pub mod chunkserver;
pub mod lease;
pub mod load;
pub mod master;

/// Version of everything in this module; part of the QUIC handshake (ALPN), so that strangers part at once.
pub const PROTOCOL: &[u8] = b"cairn/2";

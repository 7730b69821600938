//! The numbers of the network, and the quinn settings made of them. Measured on loopback (anchors/speed-of-light.md, section 2); wrong ones
//! cost a factor of three to five.

use crate::entropy::Entropy;
use crate::network::Identity;
use crate::real::entropy::OsEntropy;
use quinn::congestion::CubicConfig;
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Largest UDP payload. Segmentation offload sends [`SEGMENTS_PER_SEND`] at once, and the kernel refuses more than
/// [`SEND_BYTES_MAX`] in one call (quinn takes that for loss: nothing arrives any more).
const DATAGRAM_BYTES_MAX: u16 = 6500;
/// What quinn hands to the kernel at once.
const SEGMENTS_PER_SEND: u32 = 10;
/// Largest UDP payload of IPv4.
const SEND_BYTES_MAX: u32 = 65_507;
/// How far MTU discovery narrows its search before it stops; coarse, so that it ends within a few round trips.
const DATAGRAM_STEP_BYTES: u16 = 200;
/// Buffers of the socket. With the default of 208 KiB about 1 % of the packets of a busy connection is lost.
pub const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Bytes on the way in one call.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// Messages longer than this let shorter ones overtake.
pub const BULK_BYTES_MIN: usize = 64 << 10;
/// Priority of the streams that carry them; others have 0.
pub const BULK_PRIORITY: i32 = -1;
/// Bytes on the way in one connection, per direction.
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// What a fresh connection may have on the way before it knows the path: a burst that any switch of a data centre holds.
const INITIAL_WINDOW_BYTES: u64 = 128 << 10;
/// Round trip assumed until one was measured: a lost first packet is sent again after three of it.
const INITIAL_ROUND_TRIP: Duration = Duration::from_millis(50);
/// A connection without a packet for this long is gone.
const IDLE_LIMIT: Duration = Duration::from_secs(8);
/// A packet is sent at least this often, so that only dead peers fall silent.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);

/// Calls of the peer that are not answered yet, per connection; the peer waits above it.
const CALLS_MAX: u32 = 1024;
/// Calls that are read and wait for `accept`, per connection.
pub const CALLS_QUEUED_MAX: usize = 64;
/// Requests up to this length need no share of [`REQUEST_BYTES_MAX`]: all [`CALLS_MAX`] of them together are less.
pub const SMALL_REQUEST_BYTES: usize = 64 << 10;
/// Bytes of larger requests that are being received or answered, per connection.
pub const REQUEST_BYTES_MAX: usize = 64 << 20;
/// A peer that announced a request delivers it within this time.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// A caller takes its reply within this time.
pub const REPLY_LIMIT: Duration = Duration::from_secs(30);

/// All of `connect`.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// The server's side of it.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Handshakes under way; above it, first packets are ignored (they will be sent again).
pub const HANDSHAKES_MAX: usize = 256;
/// Handshakes under way above which a stranger must prove to receive at the address it writes from.
pub const HANDSHAKES_UNPROVED_MAX: usize = 64;
/// Open connections of an endpoint; further ones are refused.
pub const CONNECTIONS_MAX: usize = 8192;
/// Established connections that wait for `accept`.
pub const CONNECTIONS_QUEUED_MAX: usize = 64;
/// Connections without a certificate; further ones are refused.
pub const ANONYMOUS_MAX: usize = 64;
/// How long a peer without a certificate may stay. Joining takes a second.
pub const ANONYMOUS_LIMIT: Duration = Duration::from_secs(60);
/// Longest message of a peer without a certificate.
pub const ANONYMOUS_MESSAGE_BYTES_MAX: usize = 4 << 10;

/// Packets of handshakes that were not looked at yet.
pub const FIRST_PACKETS_MAX: usize = 1024;
pub const FIRST_PACKET_BYTES_PER_CONNECTION: u64 = 64 << 10;
pub const FIRST_PACKET_BYTES: u64 = 16 << 20;

const _: () = {
    assert!(DATAGRAM_BYTES_MAX as u32 * SEGMENTS_PER_SEND <= SEND_BYTES_MAX);
    assert!(STREAM_WINDOW_BYTES <= CONNECTION_WINDOW_BYTES);
    assert!(KEEP_ALIVE_INTERVAL.as_millis() * 3 < IDLE_LIMIT.as_millis());
    assert!(SMALL_REQUEST_BYTES * CALLS_MAX as usize <= REQUEST_BYTES_MAX);
    assert!(HANDSHAKES_UNPROVED_MAX < HANDSHAKES_MAX && HANDSHAKES_MAX < CONNECTIONS_MAX);
    assert!(ANONYMOUS_MESSAGE_BYTES_MAX <= SMALL_REQUEST_BYTES);
    // quinn takes these as u32.
    assert!(REQUEST_BYTES_MAX <= u32::MAX as usize);
};

/// Which end of a connection a transport is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// The transports of one side, by where the peer is.
#[derive(Debug, Clone)]
pub struct Transports {
    loopback: Arc<TransportConfig>,
    network: Arc<TransportConfig>,
}

impl Transports {
    pub fn new(side: Side) -> Self {
        let mut loopback = transport(side);
        // Known to fit, so there is no need to search for it.
        loopback.initial_mtu(DATAGRAM_BYTES_MAX);
        Self { loopback: Arc::new(loopback), network: Arc::new(transport(side)) }
    }

    pub fn towards(&self, peer: SocketAddr) -> Arc<TransportConfig> {
        if peer.ip().to_canonical().is_loopback() { self.loopback.clone() } else { self.network.clone() }
    }
}

fn transport(side: Side) -> TransportConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(DATAGRAM_BYTES_MAX).minimum_change(DATAGRAM_STEP_BYTES);
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW_BYTES);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(CALLS_MAX))
        // The welcome, and nothing else, is unidirectional.
        .max_concurrent_uni_streams(VarInt::from_u32(match side {
            Side::Client => 1,
            Side::Server => 0,
        }))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(u64::from(CONNECTION_WINDOW_BYTES))
        // One large message after the other: together they would all arrive as late as the last.
        .send_fairness(false)
        .initial_rtt(INITIAL_ROUND_TRIP)
        .mtu_discovery_config(Some(discovery))
        .congestion_controller_factory(Arc::new(congestion))
        .keep_alive_interval(Some(KEEP_ALIVE_INTERVAL))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_LIMIT.as_millis() as u32))));
    transport
}

/// Settings of a UDP port. With an identity they follow from its key, so that the next life of this process recognises the
/// connections of this one and can tell their peers that it forgot them.
pub fn endpoint_config(identity: Option<&Identity>) -> EndpointConfig {
    let mut config = match identity {
        None => EndpointConfig::default(),
        Some(identity) => {
            let mut config = EndpointConfig::new(Arc::new(ResetKey(blake3::derive_key(RESET_CONTEXT, &identity.private_key))));
            config.cid_generator(|| Box::new(RandomIds));
            config
        }
    };
    config.max_udp_payload_size(DATAGRAM_BYTES_MAX).expect("the size is within what QUIC allows");
    config
}

const CONNECTION_ID_BYTES: usize = 8;
const RESET_CONTEXT: &str = "cairn 2026-11-23 quic stateless reset";

/// Makes the tokens of stateless resets.
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        blake3::Hasher::new_keyed(&self.0).update(data).finalize_xof().fill(signature_out);
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        // `blake3::Hash` compares in constant time.
        let given = blake3::Hash::from(<[u8; 32]>::try_from(signature).map_err(|_| CryptoError)?);
        if blake3::keyed_hash(&self.0, data) == given { Ok(()) } else { Err(CryptoError) }
    }
}

/// Random connection ids. quinn's own are marked with a key of the process, and it answers no packet without that mark; a server that
/// is to reset the connections of its former life must answer to any id (at most 50 times a second).
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; CONNECTION_ID_BYTES];
        OsEntropy.fill(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

//! Messages between machines. A connection is symmetric: either side calls, the other answers. Calls run side by side;
//! none waits behind another. Real connections are QUIC with mutual TLS; each call is a stream of its own, so giving a call up
//! (dropping its future) stops its bytes, and flow control is per call.

use crate::task::{BoxFuture, TaskGuard};
use bytes::Bytes;
use cairn_common::wire::master::Role;
use std::net::SocketAddr;
use std::sync::Arc;

/// A request or a reply: a small encoded head and the raw bytes that belong to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    pub head: Bytes,
    pub body: Bytes,
}

/// Who the peer has proved to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// No certificate: may only ask to join.
    Anonymous,
    Member {
        role: Role,
        name: String,
    },
}

impl Peer {
    pub fn has_role(&self, wanted: Role) -> bool {
        matches!(self, Peer::Member { role, .. } if *role == wanted)
    }
}

/// How an endpoint shows who it is, and whom it trusts.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The role and name in the certificate. `None` for a machine that has yet to join.
    pub identity: Option<Identity>,
    pub trust: Trust,
}

/// A certificate with its key.
#[derive(Debug, Clone)]
pub struct Identity {
    pub role: Role,
    /// Unique in the cluster.
    pub name: String,
    /// DER X.509 certificate, signed by the cluster's authority. Empty in the simulated world.
    pub certificate: Vec<u8>,
    /// DER PKCS#8 private key. Empty in the simulated world.
    pub private_key: Vec<u8>,
}

/// Whose certificates are believed.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Those signed by this authority (DER).
    Authority(Vec<u8>),
    /// Those signed by the authority with this BLAKE3 fingerprint, which the peer presents along. For joining by token.
    Fingerprint([u8; 32]),
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error("no answer from {0}")]
    NoAnswer(SocketAddr),
    #[error("{address} is not a {expected} of this cluster: {reason}")]
    Untrusted { address: SocketAddr, expected: Role, reason: String },
    #[error("{address} refused the connection: {reason}")]
    Refused { address: SocketAddr, reason: String },
    #[error("cannot use {address}: {reason}")]
    Local { address: SocketAddr, reason: String },
}

/// Why a call has no answer. Whether the peer did the work is unknown, except after `TooLarge`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The connection is gone; connect again.
    #[error("the connection to {0} was lost")]
    ConnectionLost(SocketAddr),
    /// The peer gave this call up; the connection is fine.
    #[error("{0} dropped the request")]
    Dropped(SocketAddr),
    #[error("the message is too large: {0}")]
    TooLarge(String),
}

/// Opens endpoints.
pub trait Network: Send + Sync {
    /// Opens a UDP port that both calls and listens. Clients bind port 0.
    fn bind(&self, address: SocketAddr, credentials: Credentials) -> Result<Arc<dyn Endpoint>, ConnectError>;
    /// Shows a page of metrics to whoever asks over HTTP, on a TCP port of its own. Without encryption or passwords, as scrapers want it.
    fn publish(&self, address: SocketAddr, page: PageSource) -> Result<Published, ConnectError>;
}

/// Makes the page anew for each who asks.
pub type PageSource = Arc<dyn Fn() -> String + Send + Sync>;

/// A page that is being shown, until this is dropped.
pub struct Published {
    /// Where; with the port that was found if any was asked for.
    pub address: SocketAddr,
    _showing: TaskGuard,
}

impl Published {
    pub fn new(address: SocketAddr, showing: TaskGuard) -> Self {
        Self { address, _showing: showing }
    }
}

/// One local port.
pub trait Endpoint: Send + Sync {
    fn local_address(&self) -> SocketAddr;
    /// Connects to a peer that must prove to have the role `expected`. Gives up after a few seconds.
    fn connect(&self, address: SocketAddr, expected: Role) -> BoxFuture<'static, Result<Arc<dyn Connection>, ConnectError>>;
    /// The next connection that a peer has completed; `None` once the endpoint is closed.
    fn accept(&self) -> BoxFuture<'_, Option<Arc<dyn Connection>>>;
    /// Tells all peers and lets go of the port.
    fn close(&self);
}

/// A connection to one peer.
pub trait Connection: Send + Sync {
    fn peer(&self) -> &Peer;
    fn remote_address(&self) -> SocketAddr;
    /// Sends a request and waits for its reply. Without a deadline of its own: wrap it in `Runtime::timeout`.
    fn call(&self, request: Message) -> BoxFuture<'static, Result<Message, CallError>>;
    /// The next request of the peer; `None` once the connection is gone. Bounded: a peer with too many unanswered calls is
    /// held up by flow control.
    fn accept(&self) -> BoxFuture<'_, Option<IncomingCall>>;
    fn is_closed(&self) -> bool;
    /// Ready once the connection is gone.
    fn closed(&self) -> BoxFuture<'static, ()>;
    fn close(&self, reason: &str);
}

/// A request that waits for its reply. Dropping it unanswered tells the caller so.
pub struct IncomingCall {
    pub request: Message,
    pub reply: Box<dyn ReplySlot>,
}

/// Where the reply goes.
pub trait ReplySlot: Send {
    /// Sends the reply; waits until it is handed to the transport. The caller may have gone: then nothing happens.
    fn send(self: Box<Self>, reply: Message) -> BoxFuture<'static, ()>;
}

//! A UDP port: connects, and (as a server) lets peers in.

use crate::network::{ConnectError, Connection, Credentials, Endpoint, Identity, Peer};
use crate::pki;
use crate::real::network::connection::{CloseCode, QuicConnection};
use crate::real::network::settings::{
    self, ANONYMOUS_LIMIT, ANONYMOUS_MAX, CONNECT_LIMIT, CONNECTIONS_MAX, CONNECTIONS_QUEUED_MAX, HANDSHAKE_LIMIT, HANDSHAKES_MAX,
    HANDSHAKES_UNPROVED_MAX, Side, Transports,
};
use crate::real::network::{socket, tls, within};
use crate::task::BoxFuture;
use cairn_common::wire::master::Role;
use parking_lot::Mutex;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ConnectionError, TransportErrorCode};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;

/// A bound port with its credentials.
pub struct QuicEndpoint {
    handle: Handle,
    local_address: SocketAddr,
    /// `None` once closed: the socket goes when the last holder of the endpoint does.
    endpoint: Mutex<Option<quinn::Endpoint>>,
    tls: Arc<QuicClientConfig>,
    transports: Transports,
    incoming: tokio::sync::Mutex<mpsc::Receiver<Arc<dyn Connection>>>,
    /// Lets peers in.
    gatekeeper: AbortHandle,
}

impl QuicEndpoint {
    pub fn bind(handle: Handle, address: SocketAddr, credentials: &Credentials) -> Result<Self, ConnectError> {
        let Credentials { identity, trust } = credentials;
        let local = |reason: String| ConnectError::Local { address, reason };
        let server = match identity {
            Some(identity) if is_server(identity.role) => Some(tls::server_config(identity, trust).map_err(local)?),
            Some(_) | None => None,
        };
        let tls = tls::client_config(identity.as_ref(), trust).map_err(local)?;
        let endpoint = open(&handle, address, identity.as_ref(), server.as_ref()).map_err(|error| local(error.to_string()))?;
        let local_address = endpoint.local_addr().map_err(|error| local(error.to_string()))?;
        let (queue, incoming) = mpsc::channel(CONNECTIONS_QUEUED_MAX);
        let gatekeeper = handle.spawn(admit_all(handle.clone(), endpoint.clone(), server, queue)).abort_handle();
        let (endpoint, incoming) = (Mutex::new(Some(endpoint)), tokio::sync::Mutex::new(incoming));
        Ok(Self { handle, local_address, endpoint, tls, transports: Transports::new(Side::Client), incoming, gatekeeper })
    }
}

impl Endpoint for QuicEndpoint {
    fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    fn connect(&self, address: SocketAddr, expected: Role) -> BoxFuture<'static, Result<Arc<dyn Connection>, ConnectError>> {
        let mut config = quinn::ClientConfig::new(self.tls.clone());
        config.transport_config(self.transports.towards(address));
        let endpoint = self.endpoint.lock().clone();
        let handle = self.handle.clone();
        Box::pin(async move {
            let Some(endpoint) = endpoint else {
                return Err(ConnectError::Local { address, reason: "the endpoint is closed".to_owned() });
            };
            match within(CONNECT_LIMIT, establish(&handle, endpoint, config, address, expected)).await {
                Some(result) => result,
                None => Err(ConnectError::NoAnswer(address)),
            }
        })
    }

    fn accept(&self) -> BoxFuture<'_, Option<Arc<dyn Connection>>> {
        Box::pin(async { self.incoming.lock().await.recv().await })
    }

    fn close(&self) {
        if let Some(endpoint) = self.endpoint.lock().take() {
            endpoint.close(CloseCode::Done.into(), b"the peer shuts down");
        }
    }
}

/// Lets nobody in any more. Connections go on, and the port is free when the last of them is gone.
impl Drop for QuicEndpoint {
    fn drop(&mut self) {
        self.gatekeeper.abort();
        if let Some(endpoint) = self.endpoint.lock().take() {
            endpoint.set_server_config(None);
        }
    }
}

fn is_server(role: Role) -> bool {
    match role {
        Role::Master | Role::Chunkserver => true,
        Role::Client => false,
    }
}

fn open(
    handle: &Handle,
    address: SocketAddr,
    identity: Option<&Identity>,
    server: Option<&Arc<QuicServerConfig>>,
) -> std::io::Result<quinn::Endpoint> {
    let socket = socket::bind(address)?;
    // quinn registers the socket with, and starts its driver on, the runtime it finds itself in.
    let _context = handle.enter();
    let server = server.map(|tls| server_config(tls, &Transports::new(Side::Server), address));
    quinn::Endpoint::new(settings::endpoint_config(identity), server, socket, Arc::new(quinn::TokioRuntime))
}

fn server_config(tls: &Arc<QuicServerConfig>, transports: &Transports, peer: SocketAddr) -> quinn::ServerConfig {
    let mut config = quinn::ServerConfig::with_crypto(tls.clone());
    config
        .transport_config(transports.towards(peer))
        .max_incoming(settings::FIRST_PACKETS_MAX)
        .incoming_buffer_size(settings::FIRST_PACKET_BYTES_PER_CONNECTION)
        .incoming_buffer_size_total(settings::FIRST_PACKET_BYTES);
    config
}

/// The client's side of a handshake, up to the welcome.
async fn establish(
    handle: &Handle,
    endpoint: quinn::Endpoint,
    config: quinn::ClientConfig,
    address: SocketAddr,
    expected: Role,
) -> Result<Arc<dyn Connection>, ConnectError> {
    let connecting = {
        let _context = handle.enter();
        endpoint.connect_with(config, address, &pki::names::role_name(expected))
    };
    let local = |reason: String| ConnectError::Local { address, reason };
    let connection = connecting.map_err(|error| local(error.to_string()))?.await.map_err(|error| explain(error, address, expected))?;
    let mut welcome = connection.accept_uni().await.map_err(|error| explain(error, address, expected))?;
    // Read to its end, which is where it begins; anything else is not ours to judge.
    _ = welcome.read_to_end(0).await;
    let untrusted = || ConnectError::Untrusted { address, expected, reason: "its certificate does not name a member".to_owned() };
    let peer = tls::peer(&connection).filter(|peer| peer.has_role(expected)).ok_or_else(untrusted)?;
    Ok(QuicConnection::start(handle, connection, peer, None))
}

/// Says in the words of the seam why a handshake failed.
fn explain(error: ConnectionError, address: SocketAddr, expected: Role) -> ConnectError {
    let refused = |reason: String| ConnectError::Refused { address, reason };
    match error {
        ConnectionError::TransportError(error) if is_tls(error.code) => {
            ConnectError::Untrusted { address, expected, reason: tls::in_words(&or_code(error.reason, error.code)) }
        }
        ConnectionError::TransportError(error) => refused(or_code(error.reason, error.code)),
        ConnectionError::ConnectionClosed(close) if close.error_code == no_protocol() => {
            refused("it speaks another version of the CairnFS protocol".to_owned())
        }
        ConnectionError::ConnectionClosed(close) if is_tls(close.error_code) => {
            let reason = or_code(String::from_utf8_lossy(&close.reason).into_owned(), close.error_code);
            refused(format!("it does not accept the certificate of this machine ({})", tls::in_words(&reason)))
        }
        ConnectionError::ConnectionClosed(close) if close.error_code == TransportErrorCode::CONNECTION_REFUSED => {
            refused("it takes no more connections, or is no server".to_owned())
        }
        ConnectionError::ConnectionClosed(close) => refused(or_code(String::from_utf8_lossy(&close.reason).into_owned(), close.error_code)),
        ConnectionError::ApplicationClosed(close) => refused(String::from_utf8_lossy(&close.reason).into_owned()),
        ConnectionError::VersionMismatch => refused("it speaks another version of QUIC".to_owned()),
        ConnectionError::TimedOut | ConnectionError::Reset => ConnectError::NoAnswer(address),
        ConnectionError::LocallyClosed => ConnectError::Local { address, reason: "the endpoint is closed".to_owned() },
        ConnectionError::CidsExhausted => ConnectError::Local { address, reason: "there are too many connections".to_owned() },
    }
}

fn or_code(reason: String, code: TransportErrorCode) -> String {
    if reason.is_empty() { code.to_string() } else { reason }
}

/// Codes 0x100 to 0x1ff are alerts of TLS (RFC 9001, section 4.8).
fn is_tls(code: TransportErrorCode) -> bool {
    (0x100..0x200).contains(&u64::from(code))
}

/// The alert `no_application_protocol`.
fn no_protocol() -> TransportErrorCode {
    TransportErrorCode::crypto(120)
}

/// Lets peers in until the endpoint is closed.
async fn admit_all(
    handle: Handle,
    endpoint: quinn::Endpoint,
    tls: Option<Arc<QuicServerConfig>>,
    queue: mpsc::Sender<Arc<dyn Connection>>,
) {
    let Some(tls) = tls else {
        // quinn answers no first packet without a server's settings; this waits for the end of the endpoint.
        while let Some(incoming) = endpoint.accept().await {
            incoming.ignore();
        }
        return;
    };
    let gate = Arc::new(Gate {
        handle: handle.clone(),
        tls,
        transports: Transports::new(Side::Server),
        anonymous: Arc::new(Semaphore::new(ANONYMOUS_MAX)),
        queue,
    });
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    while let Some(incoming) = endpoint.accept().await {
        if endpoint.open_connections() >= CONNECTIONS_MAX {
            incoming.refuse();
            continue;
        }
        let Ok(place) = handshakes.clone().try_acquire_owned() else {
            incoming.ignore();
            continue;
        };
        let under_way = HANDSHAKES_MAX - handshakes.available_permits();
        if under_way > HANDSHAKES_UNPROVED_MAX && !incoming.remote_address_validated() {
            // Fails only for those that have proved it.
            _ = incoming.retry();
            continue;
        }
        handle.spawn(gate.clone().admit(incoming, place));
    }
}

/// What all handshakes of a server share.
struct Gate {
    handle: Handle,
    tls: Arc<QuicServerConfig>,
    transports: Transports,
    anonymous: Arc<Semaphore>,
    queue: mpsc::Sender<Arc<dyn Connection>>,
}

impl Gate {
    /// Brings one peer through its handshake. `place` is held until somebody has taken the connection.
    async fn admit(self: Arc<Self>, incoming: quinn::Incoming, place: OwnedSemaphorePermit) {
        let address = incoming.remote_address();
        match within(HANDSHAKE_LIMIT, self.handshake(incoming)).await {
            Some(Ok(connection)) => _ = self.queue.send(connection).await,
            Some(Err(reason)) => tracing::info!(peer = %address, reason, "a connection was refused"),
            None => tracing::info!(peer = %address, "a connection was not completed in time"),
        }
        drop(place);
    }

    async fn handshake(&self, incoming: quinn::Incoming) -> Result<Arc<dyn Connection>, String> {
        let config = server_config(&self.tls, &self.transports, incoming.remote_address());
        let connecting = incoming.accept_with(Arc::new(config)).map_err(|error| error.to_string())?;
        let connection = connecting.await.map_err(|error| error.to_string())?;
        let refuse = |code: CloseCode, reason: &str| {
            connection.close(code.into(), reason.as_bytes());
            reason.to_owned()
        };
        let peer =
            tls::peer(&connection).ok_or_else(|| refuse(CloseCode::Malformed, "the certificate does not name a member of a cluster"))?;
        let place = match peer {
            Peer::Member { .. } => None,
            Peer::Anonymous => {
                let place = self.anonymous.clone().try_acquire_owned();
                Some(place.map_err(|_| refuse(CloseCode::Busy, "too many machines are joining; try again"))?)
            }
        };
        let mut welcome = connection.open_uni().await.map_err(|error| error.to_string())?;
        _ = welcome.finish();
        if place.is_some() {
            self.handle.spawn(show_out(connection.clone()));
        }
        Ok(QuicConnection::start(&self.handle, connection, peer, place))
    }
}

/// Ends the visit of a peer without a certificate when its time is over.
async fn show_out(connection: quinn::Connection) {
    if within(ANONYMOUS_LIMIT, connection.closed()).await.is_none() {
        connection.close(CloseCode::Busy.into(), b"the time for joining is over; connect again");
    }
}

//! The network of the real machine: QUIC (quinn) with mutual TLS 1.3 (rustls, ring).
//!
//! - One UDP port per endpoint, for connections in both directions. An endpoint listens if its identity is a server's.
//! - A call is a bidirectional stream: a frame each way ([`frame`]), then its end. A call that is given up resets its stream.
//! - A client counts itself connected once the server has *welcomed* it with the one unidirectional stream there is. TLS 1.3
//!   lets a client believe in a connection that the server is about to refuse; the welcome turns that into a clear error.
//! - Nothing a stranger sends is allocated or queued without a limit ([`settings`]): lengths are checked before memory is taken,
//!   handshakes, connections, queued calls and unanswered request bytes are counted, and each wait has an end.
//! - Beside it, a [`page`] of metrics may be shown over HTTP, to whoever can reach its TCP port.
//! - A server that restarts with the same key resets the connections of its former life, so that peers notice at once.

mod connection;
mod endpoint;
mod frame;
mod page;
mod settings;
mod socket;
#[cfg(test)]
mod tests;
mod tls;

use crate::network::{ConnectError, Credentials, Endpoint, Network, PageSource, Published};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// Opens QUIC endpoints whose work runs on one tokio runtime.
#[derive(Debug, Clone)]
pub struct QuicNetwork {
    handle: Handle,
}

impl QuicNetwork {
    /// Connections are driven by the runtime of `handle`, whoever uses them.
    pub fn new(handle: Handle) -> Self {
        Self { handle }
    }
}

impl Network for QuicNetwork {
    fn bind(&self, address: SocketAddr, credentials: Credentials) -> Result<Arc<dyn Endpoint>, ConnectError> {
        Ok(Arc::new(endpoint::QuicEndpoint::bind(self.handle.clone(), address, &credentials)?))
    }

    fn publish(&self, address: SocketAddr, page: PageSource) -> Result<Published, ConnectError> {
        page::publish(&self.handle, address, page)
    }
}

/// Runs a future for at most `limit`; `None` when the time is over.
#[expect(clippy::disallowed_methods, reason = "the real network keeps its own time, below Runtime::timeout")]
async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    tokio::time::timeout(limit, future).await.ok()
}

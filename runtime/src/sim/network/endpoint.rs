//! A bound port.

use super::connection::{Side, SimConnection};
use super::link::{Hello, Packet, Transit};
use super::state::{EndpointId, EndpointState};
use super::{CONNECT_TIME, Net, node_ip};
use crate::network::{ConnectError, Connection, Endpoint};
use crate::sim::clock::Sleep;
use crate::sim::node::{Life, NodeId};
use crate::task::BoxFuture;
use cairn_common::wire::master::Role;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

type Answer = oneshot::Receiver<Result<Arc<Side>, ConnectError>>;

impl Net {
    /// Takes a port of a node (any free one for 0); `None` if it is in use.
    pub(super) fn bind(
        &self,
        life: &Arc<Life>,
        ip: IpAddr,
        port: u16,
        identity: Option<(Role, String)>,
    ) -> Option<(EndpointId, SocketAddr)> {
        let mut state = self.state.lock();
        let port = if port == 0 { state.free_port(ip)? } else { port };
        let address = SocketAddr::new(ip, port);
        if state.ports.contains_key(&address) {
            return None;
        }
        let id = state.fresh_id();
        state.ports.insert(address, id);
        state.endpoints.insert(id, EndpointState::new(life.clone(), address, identity));
        Some((id, address))
    }

    /// Sends the first packet of a connection; `None` if the endpoint is closed.
    fn start_connect(self: &Arc<Self>, endpoint: EndpointId, to: SocketAddr, expected: Role) -> Option<Answer> {
        let mut state = self.state.lock();
        let attempt = state.fresh_id();
        let (sender, receiver) = oneshot::channel();
        let own = state.endpoints.get(&endpoint)?;
        let (life, from, peer) = (own.life.clone(), own.address, own.as_peer());
        let hello = Hello { attempt, endpoint, from, peer, to, expected, life: life.clone() };
        state.attempts.retain(|_, waiting| !waiting.is_closed());
        state.attempts.insert(attempt, sender);
        if let Some(target) = node_of(to.ip()) {
            self.send(&mut state, Transit { from: life.node, to: target, packet: Packet::Hello(Box::new(hello)) });
        }
        Some(receiver)
    }

    fn poll_accept(&self, endpoint: EndpointId, context: &mut Context<'_>) -> Poll<Option<Arc<Side>>> {
        let mut state = self.state.lock();
        let Some(endpoint) = state.endpoints.get_mut(&endpoint) else { return Poll::Ready(None) };
        match endpoint.incoming.pop_front() {
            Some(side) => Poll::Ready(Some(side)),
            None => {
                endpoint.wakers.add(context.waker());
                Poll::Pending
            }
        }
    }

    /// Stops listening; connections go on.
    fn release(&self, endpoint: EndpointId) {
        let released = self.state.lock().release(endpoint);
        drop(released);
    }

    /// Stops listening and closes all connections, telling the peers.
    fn close_endpoint(self: &Arc<Self>, endpoint: EndpointId) {
        let released = {
            let mut state = self.state.lock();
            for (connection, side) in state.sides_where(|side| side.endpoint == endpoint) {
                let [caller, listener] = state.connections[&connection].each_ref().map(|side| side.life.node);
                let (from, to) = if side == 0 { (caller, listener) } else { (listener, caller) };
                self.send(&mut state, Transit { from, to, packet: Packet::Close { connection, side: 1 - side } });
                self.end_side(&mut state, connection, side, "the endpoint was closed");
            }
            state.release(endpoint)
        };
        drop(released);
    }

    /// A node dies: its ports and its sides of connections are gone, and nobody is told.
    pub(super) fn vanish(self: &Arc<Self>, node: NodeId) {
        let mut state = self.state.lock();
        for (connection, side) in state.sides_where(|side| side.life.node == node) {
            self.end_side(&mut state, connection, side, "the node died");
        }
        let gone: Vec<EndpointId> = state.endpoints.iter().filter(|(_, endpoint)| endpoint.life.node == node).map(|(id, _)| *id).collect();
        let released: Vec<Option<EndpointState>> = gone.into_iter().map(|id| state.release(id)).collect();
        drop(state);
        drop(released);
    }

    /// The world ends.
    pub(super) fn clear(&self) {
        let mut state = self.state.lock();
        let held = std::mem::take(&mut state.held);
        let endpoints = std::mem::take(&mut state.endpoints);
        let attempts = std::mem::take(&mut state.attempts);
        drop(state);
        drop((held, endpoints, attempts));
    }
}

/// An endpoint, as the code of a role holds it.
pub(super) struct SimEndpoint {
    net: Arc<Net>,
    life: Arc<Life>,
    id: EndpointId,
    address: SocketAddr,
}

impl SimEndpoint {
    pub(super) fn new(net: Arc<Net>, life: Arc<Life>, id: EndpointId, address: SocketAddr) -> Self {
        Self { net, life, id, address }
    }

    /// The address that a node means by one that may be "this machine".
    fn absolute(&self, address: SocketAddr) -> SocketAddr {
        let is_own = address.ip().is_unspecified() || address.ip().is_loopback();
        if is_own { SocketAddr::new(node_ip(self.life.node), address.port()) } else { address }
    }
}

impl Endpoint for SimEndpoint {
    fn local_address(&self) -> SocketAddr {
        self.address
    }

    fn connect(&self, address: SocketAddr, expected: Role) -> BoxFuture<'static, Result<Arc<dyn Connection>, ConnectError>> {
        let (net, id, to) = (self.net.clone(), self.id, self.absolute(address));
        Box::pin(async move {
            let closed = || ConnectError::Local { address, reason: "the endpoint is closed".to_owned() };
            let answer = net.start_connect(id, to, expected).ok_or_else(closed)?;
            let give_up = Sleep::new(net.scheduler.clone(), net.scheduler.now().plus(CONNECT_TIME));
            tokio::select! {
                biased;
                answer = answer => match answer {
                    Ok(Ok(side)) => Ok(Arc::new(SimConnection(side)) as Arc<dyn Connection>),
                    Ok(Err(error)) => Err(error),
                    Err(_) => Err(ConnectError::NoAnswer(address)),
                },
                () = give_up => Err(ConnectError::NoAnswer(address)),
            }
        })
    }

    fn accept(&self) -> BoxFuture<'_, Option<Arc<dyn Connection>>> {
        Box::pin(async move {
            let side = poll_fn(|context| self.net.poll_accept(self.id, context)).await?;
            Some(Arc::new(SimConnection(side)) as Arc<dyn Connection>)
        })
    }

    fn close(&self) {
        self.net.close_endpoint(self.id);
    }
}

impl Drop for SimEndpoint {
    fn drop(&mut self) {
        self.net.release(self.id);
    }
}

/// The node of an address, if it could be one.
fn node_of(ip: IpAddr) -> Option<NodeId> {
    let IpAddr::V4(ip) = ip else { return None };
    let [10, high, low, host] = Ipv4Addr::octets(&ip) else { return None };
    let network = u32::from(high) * 256 + u32::from(low);
    let node = NodeId(network * 250 + u32::from(host).checked_sub(1)?);
    (node_ip(node) == IpAddr::V4(ip)).then_some(node)
}

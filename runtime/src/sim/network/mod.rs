//! The simulated network, at the level of messages, with the manners of QUIC: a lost packet is sent again, so loss only delays;
//! what kills a connection is ten seconds of silence, from a cut link or a dead peer, or the answer of a peer that does not know it (any more).
//!
//! Invariants:
//! - a side of a connection that cannot hear its peer (cut link, crash, closed) is lost after [`SILENCE_MAX`] unless that changes before;
//! - a packet for a side that is gone is answered with a reset by whoever listens at its address, in particular by the next life of a
//!   server (as in the real network, where the key of resets follows from that of the machine); one that hears nothing sends such a
//!   packet every [`KEEP_ALIVE_INTERVAL`];
//! - a message whose link is cut waits; it arrives some time after the link heals, or never if its connection dies first;
//! - nothing here calls out, and nothing that others gave is dropped, while the lock of the state is held.

mod connection;
mod endpoint;
mod link;
mod state;

use crate::network::{ConnectError, Credentials, Endpoint, Network, PageSource, Published};
use crate::sim::executor::Scheduler;
use crate::sim::node::{Life, Node, NodeId};
use crate::sim::random::Random;
use crate::sim::trace::{Event, Trace};
use endpoint::SimEndpoint;
use parking_lot::Mutex;
use state::NetworkState;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// A side that hears nothing for this long takes its connection for lost.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(10);
/// A side that hears nothing speaks so often.
pub(super) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// How long a connection attempt waits for its answer.
pub(super) const CONNECT_TIME: Duration = Duration::from_secs(3);
/// Calls of one side that may be unanswered at the same time; more wait. Also the connections that may wait to be accepted.
pub(super) const OPEN_CALLS_MAX: usize = 1024;

/// How the links between nodes behave.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkFaults {
    /// Time that a small message takes, one way. Messages overtake each other within this range.
    pub delay: RangeInclusive<Duration>,
    /// Bytes per second of a message, beyond its delay. Messages do not share the link.
    pub bandwidth: u64,
    /// Probability that a message is lost and must be sent again, which delays it by 30 ms and more.
    pub loss: f64,
    /// Probability that a message takes a detour, so that many others overtake it.
    pub reorder: f64,
    /// The longest detour.
    pub detour: Duration,
}

impl Default for NetworkFaults {
    /// A healthy 10 Gbit/s network.
    fn default() -> Self {
        Self {
            delay: Duration::from_micros(40)..=Duration::from_micros(400),
            bandwidth: 1_250_000_000,
            loss: 0.0,
            reorder: 0.0,
            detour: Duration::from_millis(50),
        }
    }
}

impl NetworkFaults {
    /// A network that loses one message in fifty and shuffles the others.
    pub fn lossy() -> Self {
        Self { loss: 0.02, reorder: 0.05, delay: Duration::from_micros(40)..=Duration::from_millis(2), ..Self::default() }
    }
}

/// The network of a world, as a test sees it: to hurt and to heal it. Cheap to clone.
#[derive(Clone)]
pub struct SimNetwork(Arc<Net>);

/// What all endpoints share.
pub(super) struct Net {
    scheduler: Arc<Scheduler>,
    trace: Arc<Trace>,
    state: Mutex<NetworkState>,
}

impl SimNetwork {
    pub(super) fn new(seed: u64, scheduler: Arc<Scheduler>, trace: Arc<Trace>) -> Self {
        let state = NetworkState::new(Random::derive(seed, "network"));
        Self(Arc::new(Net { scheduler, trace, state: Mutex::new(state) }))
    }

    /// Replaces the faults of all links, from now on.
    pub fn set_faults(&self, faults: NetworkFaults) {
        self.note(&format!("network: {faults:?}"));
        self.0.state.lock().faults = faults;
    }

    /// Lets every message from and to a node take `factor` times as long; 1 is normal again.
    pub fn set_slowness(&self, node: &Node, factor: u32) {
        self.note(&format!("messages of {node:?} take {factor} times as long"));
        let mut state = self.0.state.lock();
        if factor > 1 {
            state.slow.insert(node.id(), factor)
        } else {
            state.slow.remove(&node.id())
        };
    }

    /// Cuts the link between two nodes, both ways.
    pub fn partition(&self, a: &Node, b: &Node) {
        self.cut(&[(a.id(), b.id()), (b.id(), a.id())]);
    }

    /// Cuts one direction: nothing that `from` sends reaches `to`.
    pub fn partition_one_way(&self, from: &Node, to: &Node) {
        self.cut(&[(from.id(), to.id())]);
    }

    /// Cuts all links between the nodes of two groups, both ways.
    pub fn partition_groups(&self, left: &[Node], right: &[Node]) {
        let pairs = left.iter().flat_map(|a| right.iter().map(move |b| (a.id(), b.id())));
        let cuts: Vec<(NodeId, NodeId)> = pairs.filter(|(a, b)| a != b).flat_map(|(a, b)| [(a, b), (b, a)]).collect();
        self.cut(&cuts);
    }

    /// Restores the link between two nodes, both ways.
    pub fn heal_between(&self, a: &Node, b: &Node) {
        self.note(&format!("{a:?} and {b:?} are connected again"));
        self.0.heal(|cut| cut == (a.id(), b.id()) || cut == (b.id(), a.id()));
    }

    /// Restores all links. The faults of `set_faults` stay.
    pub fn heal(&self) {
        self.note("all links are connected again");
        self.0.heal(|_| true);
    }

    fn cut(&self, links: &[(NodeId, NodeId)]) {
        for (from, to) in links {
            self.note(&format!("the link from node {} to node {} is cut", from.0, to.0));
        }
        self.0.cut(links);
    }

    fn note(&self, text: &str) {
        self.0.trace.add(Event::Fault { text });
    }

    pub(super) fn vanish(&self, node: NodeId) {
        self.0.vanish(node);
    }

    pub(super) fn clear(&self) {
        self.0.clear();
    }
}

/// The address of a node: 10.0.0.1, 10.0.0.2, ...
pub(super) fn node_ip(node: NodeId) -> IpAddr {
    const HOSTS_PER_NETWORK: u32 = 250;
    let [.., high, low] = (node.0 / HOSTS_PER_NETWORK).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, high, low, (node.0 % HOSTS_PER_NETWORK + 1) as u8))
}

/// The network of one life of a node.
pub(super) struct LifeNetwork {
    net: Arc<Net>,
    life: Arc<Life>,
}

impl LifeNetwork {
    pub(super) fn new(network: SimNetwork, life: Arc<Life>) -> Self {
        Self { net: network.0, life }
    }
}

impl Network for LifeNetwork {
    fn bind(&self, address: SocketAddr, credentials: Credentials) -> Result<Arc<dyn Endpoint>, ConnectError> {
        let local = |reason: &str| ConnectError::Local { address, reason: reason.to_owned() };
        let own = node_ip(self.life.node);
        if self.life.has_ended() {
            return Err(local("this life of the node is over"));
        }
        if !(address.ip().is_unspecified() || address.ip().is_loopback() || address.ip() == own) {
            return Err(local("the address belongs to another machine"));
        }
        let identity = credentials.identity.map(|identity| (identity.role, identity.name));
        let (id, bound) = self.net.bind(&self.life, own, address.port(), identity).ok_or_else(|| local("the port is in use"))?;
        Ok(Arc::new(SimEndpoint::new(self.net.clone(), self.life.clone(), id, bound)))
    }

    fn publish(&self, address: SocketAddr, _page: PageSource) -> Result<Published, ConnectError> {
        Err(ConnectError::Local { address, reason: "nobody looks at pages in the simulated world".to_owned() })
    }
}

//! Who listens where, and the two sides of every connection.

use super::connection::Side;
use super::link::{Packet, Transit};
use super::{NetworkFaults, OPEN_CALLS_MAX};
use crate::network::{CallError, ConnectError, Message, Peer};
use crate::sim::node::{Life, NodeId};
use crate::sim::random::Random;
use cairn_common::wire::master::Role;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Waker;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

pub(super) type EndpointId = u64;
pub(super) type ConnectionId = u64;
pub(super) type AttemptId = u64;
pub(super) type CallId = u64;

/// The side that connected, and the side that accepted: indices into a connection's sides.
pub(super) const CALLER: usize = 0;
pub(super) const LISTENER: usize = 1;

pub(super) struct NetworkState {
    pub(super) random: Random,
    pub(super) faults: NetworkFaults,
    /// Nodes whose messages take so many times longer, both ways.
    pub(super) slow: BTreeMap<NodeId, u32>,
    /// Directed links that let nothing through.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    /// What waits for a cut link to heal.
    pub(super) held: Vec<Transit>,
    pub(super) ports: BTreeMap<SocketAddr, EndpointId>,
    pub(super) endpoints: BTreeMap<EndpointId, EndpointState>,
    pub(super) connections: BTreeMap<ConnectionId, [SideState; 2]>,
    pub(super) attempts: BTreeMap<AttemptId, oneshot::Sender<Result<Arc<Side>, ConnectError>>>,
    next_id: u64,
}

pub(super) struct EndpointState {
    pub(super) life: Arc<Life>,
    pub(super) address: SocketAddr,
    pub(super) identity: Option<(Role, String)>,
    /// Connections that wait to be accepted.
    pub(super) incoming: VecDeque<Arc<Side>>,
    pub(super) wakers: Wakers,
}

impl EndpointState {
    pub(super) fn new(life: Arc<Life>, address: SocketAddr, identity: Option<(Role, String)>) -> Self {
        Self { life, address, identity, incoming: VecDeque::new(), wakers: Wakers::default() }
    }

    pub(super) fn as_peer(&self) -> Peer {
        match &self.identity {
            Some((role, name)) => Peer::Member { role: *role, name: name.clone() },
            None => Peer::Anonymous,
        }
    }
}

/// A request that waits to be accepted.
pub(super) struct WaitingCall {
    pub(super) call: CallId,
    pub(super) request: Message,
    pub(super) permit: OwnedSemaphorePermit,
}

/// One side of a connection.
pub(super) struct SideState {
    pub(super) life: Arc<Life>,
    pub(super) endpoint: EndpointId,
    pub(super) remote_address: SocketAddr,
    pub(super) is_open: bool,
    /// Calls of this side that wait for their reply.
    pub(super) pending: BTreeMap<CallId, oneshot::Sender<Result<Message, CallError>>>,
    /// Calls of the other side that wait to be accepted. Bounded by its credit.
    pub(super) incoming: VecDeque<WaitingCall>,
    /// Those who wait in accept() or closed().
    pub(super) wakers: Wakers,
    /// How many more calls this side may have unanswered.
    pub(super) credit: Arc<Semaphore>,
    /// Names the timer that will take the connection for lost, while the other side cannot be heard.
    pub(super) silence: Option<u64>,
}

impl SideState {
    pub(super) fn new(life: Arc<Life>, endpoint: EndpointId, remote_address: SocketAddr, credit: Arc<Semaphore>) -> Self {
        let is_open = !life.has_ended();
        Self {
            life,
            endpoint,
            remote_address,
            is_open,
            pending: BTreeMap::new(),
            incoming: VecDeque::new(),
            wakers: Wakers::default(),
            credit,
            silence: None,
        }
    }

    pub(super) fn new_credit() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(OPEN_CALLS_MAX))
    }

    /// Ends this side: its calls fail, its waiting requests are forgotten, everyone who waits is woken.
    pub(super) fn end(&mut self) {
        self.is_open = false;
        self.silence = None;
        self.credit.close();
        self.incoming.clear();
        for sender in std::mem::take(&mut self.pending).into_values() {
            // The caller may have given up.
            let _ = sender.send(Err(CallError::ConnectionLost(self.remote_address)));
        }
        self.wakers.wake_all();
    }
}

impl NetworkState {
    pub(super) fn new(random: Random) -> Self {
        Self {
            random,
            faults: NetworkFaults::default(),
            slow: BTreeMap::new(),
            cut: BTreeSet::new(),
            held: Vec::new(),
            ports: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            connections: BTreeMap::new(),
            attempts: BTreeMap::new(),
            next_id: 0,
        }
    }

    pub(super) fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A side that is still open.
    pub(super) fn open_side(&mut self, connection: ConnectionId, side: usize) -> Option<&mut SideState> {
        self.connections.get_mut(&connection).map(|sides| &mut sides[side]).filter(|side| side.is_open)
    }

    /// Whether anybody would still send this packet again: nobody retransmits for an attempt that was given up.
    pub(super) fn is_wanted(&self, packet: &Packet) -> bool {
        let attempt = packet.attempt();
        attempt.is_none_or(|attempt| self.attempts.get(&attempt).is_some_and(|waiting| !waiting.is_closed()))
    }

    /// A port of an address that nobody uses; hardly ever one that a former life has used.
    pub(super) fn free_port(&mut self, ip: std::net::IpAddr) -> Option<u16> {
        const EPHEMERAL: std::ops::RangeInclusive<u16> = 49_152..=u16::MAX;
        let first = self.random.index(EPHEMERAL.len());
        let mut ports = EPHEMERAL.cycle().skip(first).take(EPHEMERAL.len());
        ports.find(|port| !self.ports.contains_key(&SocketAddr::new(ip, *port)))
    }

    /// Stops listening. Gives back what must be dropped without the lock.
    pub(super) fn release(&mut self, endpoint: EndpointId) -> Option<EndpointState> {
        let mut state = self.endpoints.remove(&endpoint)?;
        self.ports.remove(&state.address);
        state.wakers.wake_all();
        Some(state)
    }

    /// Connections with an open side of an endpoint, with that side.
    pub(super) fn sides_where(&self, wanted: impl Fn(&SideState) -> bool) -> Vec<(ConnectionId, usize)> {
        let sides = self.connections.iter().flat_map(|(id, sides)| sides.iter().enumerate().map(move |(index, side)| (*id, index, side)));
        sides.filter(|(_, _, side)| side.is_open && wanted(side)).map(|(id, index, _)| (id, index)).collect()
    }
}

/// Tasks that wait for a change. Waking too many is harmless.
#[derive(Default)]
pub(super) struct Wakers(Vec<Waker>);

impl Wakers {
    pub(super) fn add(&mut self, waker: &Waker) {
        if !self.0.iter().any(|known| known.will_wake(waker)) {
            self.0.push(waker.clone());
        }
    }

    pub(super) fn wake_all(&mut self) {
        for waker in self.0.drain(..) {
            waker.wake();
        }
    }
}

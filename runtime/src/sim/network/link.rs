//! Packets on their way: delay, loss, cut links, and the silence that kills a connection.

use super::connection::Side;
use super::state::{AttemptId, CALLER, CallId, ConnectionId, EndpointId, LISTENER, NetworkState, SideState, WaitingCall};
use super::{KEEP_ALIVE_INTERVAL, Net, OPEN_CALLS_MAX, SILENCE_MAX};
use crate::network::{CallError, ConnectError, Message, Peer};
use crate::sim::node::{Life, NodeId};
use crate::sim::trace::Event;
use cairn_common::wire::master::Role;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// The first retransmission comes after this long, each later one after twice as long.
const RETRANSMIT_FIRST: Duration = Duration::from_millis(30);
const RETRANSMIT_LAST: Duration = Duration::from_secs(2);
/// After a link heals, the retransmission of what was held takes up to this long.
const RESUME_MAX: Duration = Duration::from_millis(300);

/// A packet between two nodes.
pub(super) struct Transit {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) packet: Packet,
}

/// One who wants to connect.
pub(super) struct Hello {
    pub(super) attempt: AttemptId,
    pub(super) life: Arc<Life>,
    pub(super) endpoint: EndpointId,
    pub(super) from: SocketAddr,
    pub(super) peer: Peer,
    pub(super) to: SocketAddr,
    pub(super) expected: Role,
}

pub(super) enum Packet {
    Hello(Box<Hello>),
    Welcome {
        attempt: AttemptId,
        connection: ConnectionId,
        peer: Peer,
    },
    Refusal {
        attempt: AttemptId,
        error: ConnectError,
    },
    /// To the given side of the connection, as all that follow.
    Request {
        connection: ConnectionId,
        side: usize,
        call: CallId,
        message: Message,
        permit: OwnedSemaphorePermit,
    },
    Reply {
        connection: ConnectionId,
        side: usize,
        call: CallId,
        result: Result<Message, CallError>,
    },
    /// Sent while the peer cannot be heard; says nothing.
    KeepAlive {
        connection: ConnectionId,
        side: usize,
    },
    /// The machine that answers does not know the connection: QUIC's stateless reset.
    Reset {
        connection: ConnectionId,
        side: usize,
    },
    Close {
        connection: ConnectionId,
        side: usize,
    },
}

impl Packet {
    fn name(&self) -> &'static str {
        match self {
            Packet::Hello(_) => "hello",
            Packet::Welcome { .. } => "welcome",
            Packet::Refusal { .. } => "refusal",
            Packet::Request { .. } => "request",
            Packet::Reply { .. } => "reply",
            Packet::KeepAlive { .. } => "keep-alive",
            Packet::Reset { .. } => "reset",
            Packet::Close { .. } => "close",
        }
    }

    /// The call, attempt or connection it belongs to.
    fn id(&self) -> u64 {
        match self {
            Packet::Hello(hello) => hello.attempt,
            Packet::Welcome { attempt, .. } | Packet::Refusal { attempt, .. } => *attempt,
            Packet::Request { call, .. } | Packet::Reply { call, .. } => *call,
            Packet::KeepAlive { connection, .. } | Packet::Reset { connection, .. } | Packet::Close { connection, .. } => *connection,
        }
    }

    fn connection(&self) -> Option<ConnectionId> {
        match self {
            Packet::Hello(_) | Packet::Refusal { .. } => None,
            Packet::Welcome { connection, .. }
            | Packet::Request { connection, .. }
            | Packet::Reply { connection, .. }
            | Packet::KeepAlive { connection, .. }
            | Packet::Reset { connection, .. }
            | Packet::Close { connection, .. } => Some(*connection),
        }
    }

    /// The side of a connection that it is for, if the sender would like to know that there is no such side any more.
    fn addressee(&self) -> Option<(ConnectionId, usize)> {
        match self {
            Packet::Request { connection, side, .. } | Packet::Reply { connection, side, .. } | Packet::KeepAlive { connection, side } => {
                Some((*connection, *side))
            }
            Packet::Hello(_) | Packet::Welcome { .. } | Packet::Refusal { .. } | Packet::Reset { .. } | Packet::Close { .. } => None,
        }
    }

    /// The attempt to connect that it belongs to.
    pub(super) fn attempt(&self) -> Option<AttemptId> {
        match self {
            Packet::Hello(hello) => Some(hello.attempt),
            Packet::Welcome { attempt, .. } | Packet::Refusal { attempt, .. } => Some(*attempt),
            Packet::Request { .. } | Packet::Reply { .. } | Packet::KeepAlive { .. } | Packet::Reset { .. } | Packet::Close { .. } => None,
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Packet::Request { message, .. } | Packet::Reply { result: Ok(message), .. } => (message.head.len() + message.body.len()) as u64,
            Packet::Reply { .. }
            | Packet::Hello(_)
            | Packet::Welcome { .. }
            | Packet::Refusal { .. }
            | Packet::KeepAlive { .. }
            | Packet::Reset { .. }
            | Packet::Close { .. } => 0,
        }
    }
}

impl Net {
    /// Sends a packet on its way.
    pub(super) fn send(self: &Arc<Self>, state: &mut NetworkState, transit: Transit) {
        let Transit { from, to, packet } = &transit;
        self.trace.add(Event::Sent { from: *from, to: *to, packet: packet.name(), id: packet.id(), bytes: packet.bytes() });
        self.forward(state, transit, Duration::ZERO);
    }

    /// Lets a packet arrive after `extra` and the delay of its link.
    fn forward(self: &Arc<Self>, state: &mut NetworkState, transit: Transit, extra: Duration) {
        if state.cut.contains(&(transit.from, transit.to)) {
            return self.hold(state, transit);
        }
        let Some(delay) = self.draw_delay(state, &transit) else {
            // Lost again and again until the connection is given up.
            if let Some(connection) = transit.packet.connection() {
                self.lose_connection_after(connection, SILENCE_MAX);
            }
            return;
        };
        let net = self.clone();
        self.scheduler.run_at(self.scheduler.now().plus(delay + extra), None, Box::new(move || net.arrive(transit)));
    }

    /// `None` if every retransmission is lost for longer than a connection lives.
    fn draw_delay(&self, state: &mut NetworkState, transit: &Transit) -> Option<Duration> {
        let (from, to) = (transit.from, transit.to);
        let faults = state.faults.clone();
        let transfer = transit.packet.bytes().saturating_mul(1_000_000_000) / faults.bandwidth.max(1);
        let mut delay = state.random.between(&faults.delay) + Duration::from_nanos(transfer);
        if from == to {
            return Some(delay);
        }
        delay *= [from, to].iter().filter_map(|node| state.slow.get(node)).max().copied().unwrap_or(1);
        if state.random.chance(faults.reorder) {
            delay += state.random.between(&(Duration::ZERO..=faults.detour));
        }
        let mut retransmit = RETRANSMIT_FIRST;
        while state.random.chance(faults.loss) {
            self.trace.add(Event::Retransmitted { from, to, packet: transit.packet.name(), id: transit.packet.id() });
            delay += retransmit;
            retransmit = (retransmit * 2).min(RETRANSMIT_LAST);
            if delay > SILENCE_MAX {
                return None;
            }
        }
        Some(delay)
    }

    fn hold(&self, state: &mut NetworkState, transit: Transit) {
        let Transit { from, to, packet } = &transit;
        self.trace.add(Event::Held { from: *from, to: *to, packet: packet.name(), id: packet.id() });
        state.held.push(transit);
    }

    fn arrive(self: &Arc<Self>, transit: Transit) {
        let mut state = self.state.lock();
        if state.cut.contains(&(transit.from, transit.to)) {
            return self.hold(&mut state, transit);
        }
        let Transit { from, to, packet } = transit;
        let (name, id) = (packet.name(), packet.id());
        if let Some((connection, side)) = packet.addressee()
            && state.open_side(connection, side).is_none()
        {
            self.trace.add(Event::Lost { from, to, packet: name, id });
            return self.reset(&mut state, connection, side);
        }
        let is_taken = match packet {
            Packet::Hello(hello) => self.receive_hello(&mut state, *hello),
            Packet::Welcome { attempt, connection, peer } => {
                drop(state);
                self.receive_welcome(attempt, connection, peer)
            }
            Packet::Refusal { attempt, error } => state.attempts.remove(&attempt).is_some_and(|waiting| waiting.send(Err(error)).is_ok()),
            Packet::Request { connection, side, call, message, permit } => state.open_side(connection, side).is_some_and(|side| {
                side.incoming.push_back(WaitingCall { call, request: message, permit });
                side.wakers.wake_all();
                true
            }),
            Packet::Reply { connection, side, call, result } => state
                .open_side(connection, side)
                .and_then(|side| side.pending.remove(&call))
                .is_some_and(|waiting| waiting.send(result).is_ok()),
            Packet::KeepAlive { .. } => true,
            Packet::Reset { connection, side } => self.receive_end(&mut state, connection, side, "reset by the peer"),
            Packet::Close { connection, side } => self.receive_end(&mut state, connection, side, "closed by the peer"),
        };
        self.trace.add(if is_taken { Event::Delivered { from, to, packet: name, id } } else { Event::Lost { from, to, packet: name, id } });
    }

    /// The peer does not have the connection any more. False if this side has ended already.
    fn receive_end(self: &Arc<Self>, state: &mut NetworkState, connection: ConnectionId, side: usize, reason: &str) -> bool {
        let was_open = state.open_side(connection, side).is_some();
        self.end_side(state, connection, side, reason);
        was_open
    }

    /// Something came for a side that is gone, perhaps with the life of its node. Who listens at its address now, with the key of that
    /// machine, says so; if nobody does, the sender hears nothing.
    fn reset(self: &Arc<Self>, state: &mut NetworkState, connection: ConnectionId, side: usize) {
        let Some(sides) = state.connections.get(&connection) else { return };
        let (gone, sender) = (&sides[side], &sides[1 - side]);
        if state.ports.contains_key(&sender.remote_address) {
            let (from, to) = (gone.life.node, sender.life.node);
            self.send(state, Transit { from, to, packet: Packet::Reset { connection, side: 1 - side } });
        }
    }

    /// Somebody wants to connect. False if nobody is there to answer.
    fn receive_hello(self: &Arc<Self>, state: &mut NetworkState, hello: Hello) -> bool {
        let Some(id) = state.ports.get(&hello.to).copied() else { return false };
        let Some(endpoint) = state.endpoints.get(&id) else { return false };
        let (from, to) = (endpoint.life.node, hello.life.node);
        let listener_peer = endpoint.as_peer();
        let answer = match refusal(&hello, &listener_peer, endpoint.incoming.len()) {
            Some(error) => Packet::Refusal { attempt: hello.attempt, error },
            None => {
                let connection = self.establish(state, id, hello.life, hello.endpoint, hello.from, hello.peer);
                Packet::Welcome { attempt: hello.attempt, connection, peer: listener_peer }
            }
        };
        self.send(state, Transit { from, to, packet: answer });
        true
    }

    /// Makes both sides of a connection, and queues the listener's to be accepted.
    fn establish(
        self: &Arc<Self>,
        state: &mut NetworkState,
        listener: EndpointId,
        caller_life: Arc<Life>,
        caller: EndpointId,
        caller_address: SocketAddr,
        caller_peer: Peer,
    ) -> ConnectionId {
        let connection = state.fresh_id();
        let credits = [SideState::new_credit(), SideState::new_credit()];
        let endpoint = state.endpoints.get_mut(&listener).expect("the caller has looked it up");
        let caller_side = SideState::new(caller_life, caller, endpoint.address, credits[CALLER].clone());
        let listener_side = SideState::new(endpoint.life.clone(), listener, caller_address, credits[LISTENER].clone());
        let handle = Side {
            net: self.clone(),
            connection,
            index: LISTENER,
            node: endpoint.life.node,
            remote_node: caller_side.life.node,
            peer: caller_peer,
            remote_address: caller_address,
            credit: credits[LISTENER].clone(),
        };
        endpoint.incoming.push_back(Arc::new(handle));
        endpoint.wakers.wake_all();
        state.connections.insert(connection, [caller_side, listener_side]);
        self.watch_silence(state, connection);
        connection
    }

    /// The peer has accepted us. False if we no longer want it.
    fn receive_welcome(self: &Arc<Self>, attempt: AttemptId, connection: ConnectionId, peer: Peer) -> bool {
        let mut state = self.state.lock();
        let waiting = state.attempts.remove(&attempt);
        let Some([caller, listener]) = state.connections.get(&connection) else { return false };
        let side = Side {
            net: self.clone(),
            connection,
            index: CALLER,
            node: caller.life.node,
            remote_node: listener.life.node,
            peer,
            remote_address: caller.remote_address,
            credit: caller.credit.clone(),
        };
        drop(state);
        // Where nobody wants the side, dropping it here says goodbye.
        let side = Arc::new(side);
        waiting.is_some_and(|waiting| waiting.send(Ok(side)).is_ok())
    }

    pub(super) fn cut(self: &Arc<Self>, links: &[(NodeId, NodeId)]) {
        let mut state = self.state.lock();
        state.cut.extend(links.iter().copied());
        self.watch_all_silence(&mut state);
    }

    /// Restores the cut links that `is_healed` names, and sends on what they held.
    pub(super) fn heal(self: &Arc<Self>, is_healed: impl Fn((NodeId, NodeId)) -> bool) {
        let mut state = self.state.lock();
        state.cut.retain(|link| !is_healed(*link));
        for transit in std::mem::take(&mut state.held) {
            let extra = state.random.between(&(Duration::ZERO..=RESUME_MAX));
            if state.cut.contains(&(transit.from, transit.to)) {
                state.held.push(transit);
            } else if state.is_wanted(&transit.packet) {
                self.forward(&mut state, transit, extra);
            }
        }
        self.watch_all_silence(&mut state);
    }

    fn watch_all_silence(self: &Arc<Self>, state: &mut NetworkState) {
        let connections: Vec<ConnectionId> = state.connections.keys().copied().collect();
        for connection in connections {
            self.watch_silence(state, connection);
        }
    }

    /// Starts or stops the timers that take a side for lost, by whether it can hear its peer. To be called after every change of that.
    pub(super) fn watch_silence(self: &Arc<Self>, state: &mut NetworkState, connection: ConnectionId) {
        let Some(sides) = state.connections.get(&connection) else { return };
        if sides.iter().all(|side| !side.is_open) {
            state.connections.remove(&connection);
            state.held.retain(|transit| transit.packet.connection() != Some(connection));
            return;
        }
        for (own, other) in [(CALLER, LISTENER), (LISTENER, CALLER)] {
            let Some(sides) = state.connections.get(&connection) else { return };
            let is_deaf = !sides[other].is_open || state.cut.contains(&(sides[other].life.node, sides[own].life.node));
            let (is_open, is_watched) = (sides[own].is_open, sides[own].silence.is_some());
            if is_open && is_deaf && !is_watched {
                self.start_silence(state, connection, own);
            } else if !is_deaf && let Some(side) = state.open_side(connection, own) {
                side.silence = None;
            }
        }
    }

    fn start_silence(self: &Arc<Self>, state: &mut NetworkState, connection: ConnectionId, side: usize) {
        let timer = state.fresh_id();
        // Not all peers of a dead node notice in the same instant.
        let limit = SILENCE_MAX + state.random.between(&(Duration::ZERO..=Duration::from_secs(1)));
        if let Some(side) = state.open_side(connection, side) {
            side.silence = Some(timer);
        }
        let net = self.clone();
        let end = move || {
            let mut state = net.state.lock();
            if state.open_side(connection, side).is_some_and(|side| side.silence == Some(timer)) {
                net.end_side(&mut state, connection, side, "silence");
            }
        };
        self.scheduler.run_at(self.scheduler.now().plus(limit), None, Box::new(end));
        let first = state.random.between(&(Duration::ZERO..=KEEP_ALIVE_INTERVAL));
        self.keep_alive(connection, side, timer, first);
    }

    /// Lets a side that hears nothing speak after `pause`, and then regularly while the timer of its silence runs: the peer may have forgotten it.
    fn keep_alive(self: &Arc<Self>, connection: ConnectionId, side: usize, timer: u64, pause: Duration) {
        let net = self.clone();
        let speak = move || {
            let mut state = net.state.lock();
            if state.open_side(connection, side).is_none_or(|side| side.silence != Some(timer)) {
                return;
            }
            let [from, to] = [side, 1 - side].map(|side| state.connections[&connection][side].life.node);
            // Over a cut link nothing is gained by keeping it: the next one comes soon.
            if !state.cut.contains(&(from, to)) {
                net.send(&mut state, Transit { from, to, packet: Packet::KeepAlive { connection, side: 1 - side } });
            }
            net.keep_alive(connection, side, timer, KEEP_ALIVE_INTERVAL);
        };
        self.scheduler.run_at(self.scheduler.now().plus(pause), None, Box::new(speak));
    }

    fn lose_connection_after(self: &Arc<Self>, connection: ConnectionId, limit: Duration) {
        let net = self.clone();
        let end = move || {
            let mut state = net.state.lock();
            net.end_side(&mut state, connection, CALLER, "too many losses");
            net.end_side(&mut state, connection, LISTENER, "too many losses");
        };
        self.scheduler.run_at(self.scheduler.now().plus(limit), None, Box::new(end));
    }

    /// Ends one side, without a word to the other.
    pub(super) fn end_side(self: &Arc<Self>, state: &mut NetworkState, connection: ConnectionId, side: usize, reason: &str) {
        if let Some(side) = state.open_side(connection, side) {
            let node = side.life.node;
            side.end();
            self.trace.add(Event::ConnectionEnded { node, connection, reason });
            self.watch_silence(state, connection);
        }
    }
}

/// Why a listener does not take a connection, if so.
fn refusal(hello: &Hello, listener: &Peer, waiting: usize) -> Option<ConnectError> {
    let address = hello.to;
    let untrusted = |reason: String| Some(ConnectError::Untrusted { address, expected: hello.expected, reason });
    match listener {
        Peer::Anonymous => untrusted("it has no certificate".to_owned()),
        Peer::Member { role, name } if *role != hello.expected => untrusted(format!("it is the {role} {name:?}")),
        Peer::Member { .. } if waiting >= OPEN_CALLS_MAX => {
            Some(ConnectError::Refused { address, reason: "too many connections wait to be accepted".to_owned() })
        }
        Peer::Member { .. } => None,
    }
}

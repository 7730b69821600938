//! A machine of the world, and its lives: the time from a start of its processes to their end.

use crate::Runtime;
use crate::sim::clock::SimClock;
use crate::sim::disk::SimDisk;
use crate::sim::executor::SimExecutor;
use crate::sim::network::{LifeNetwork, node_ip};
use crate::sim::random::SimEntropy;
use crate::sim::trace::Event;
use crate::sim::world::Shared;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// Number of a node in its world, from 0, in order of its first mention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(super) u32);

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Crash {
    /// The process is killed. The machine runs on, so everything written to its disk is kept.
    Kill,
    /// The machine loses power. Of what was not synced, any part may be lost or torn: writes by 512-byte sectors, names by directory.
    PowerLoss,
}

/// One life of a node.
pub(super) struct Life {
    pub(super) node: NodeId,
    pub(super) name: Arc<str>,
    number: u64,
    ended: AtomicBool,
}

impl Life {
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

/// What stays of a node across its lives.
pub(super) struct NodeState {
    id: NodeId,
    name: Arc<str>,
    skew: Arc<AtomicI64>,
    disk: SimDisk,
    lives: Mutex<Lives>,
}

#[derive(Default)]
struct Lives {
    count: u64,
    current: Option<Arc<Life>>,
}

impl NodeState {
    pub(super) fn new(id: NodeId, name: &str, disk: SimDisk) -> Self {
        Self { id, name: name.into(), skew: Arc::default(), disk, lives: Mutex::default() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Ends the current life, if there is one. In this order, so that the destructors of its tasks can neither write nor say goodbye.
    pub(super) fn end_life(&self, shared: &Shared, crash: Crash) {
        let life = self.lives.lock().current.take();
        if let Some(life) = &life {
            life.ended.store(true, Ordering::Relaxed);
            shared.trace.add(Event::LifeEnded { node: self.id, life: life.number, crash });
            shared.network.vanish(self.id);
        }
        self.disk.end_life(crash);
        if let Some(life) = &life {
            shared.scheduler.drop_work_of(|other| std::ptr::eq(other, &raw const **life));
        }
    }

    fn begin_life(&self, shared: &Shared) -> Arc<Life> {
        let life = {
            let mut lives = self.lives.lock();
            lives.count += 1;
            let life = Arc::new(Life { node: self.id, name: self.name.clone(), number: lives.count, ended: AtomicBool::new(false) });
            lives.current = Some(life.clone());
            life
        };
        self.disk.begin_life();
        shared.trace.add(Event::LifeStarted { node: self.id, name: &self.name, life: life.number });
        life
    }
}

/// A machine of the world. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    pub(super) shared: Arc<Shared>,
    pub(super) state: Arc<NodeState>,
}

impl Node {
    pub fn id(&self) -> NodeId {
        self.state.id
    }

    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// Where others reach a port of this node.
    pub fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(node_ip(self.state.id), port)
    }

    /// Starts a new life of the node. There is one life at a time: an earlier one that still runs is killed.
    pub fn runtime(&self) -> Runtime {
        self.state.end_life(&self.shared, Crash::Kill);
        let life = self.state.begin_life(&self.shared);
        let scheduler = self.shared.scheduler.clone();
        Runtime {
            clock: Arc::new(SimClock::new(scheduler.clone(), self.state.skew.clone())),
            executor: Arc::new(SimExecutor { scheduler, life: life.clone(), disk: self.state.disk.clone() }),
            entropy: Arc::new(SimEntropy::new(self.shared.seed, &self.state.name, life.number)),
            network: Arc::new(LifeNetwork::new(self.shared.network.clone(), life.clone())),
            disk: Arc::new(self.state.disk.of_life(life)),
        }
    }

    /// Ends the current life: its tasks are dropped at their await, its sockets vanish without a goodbye, its disk is treated as `crash` says.
    /// Without a current life, only the disk is treated.
    pub fn crash(&self, crash: Crash) {
        self.state.end_life(&self.shared, crash);
    }

    pub fn is_running(&self) -> bool {
        self.state.lives.lock().current.is_some()
    }

    /// The disk, to inspect it and to set its faults.
    pub fn disk(&self) -> SimDisk {
        self.state.disk.clone()
    }

    /// Sets how far the wall clock of this node runs ahead of the world's (behind, if negative), in nanoseconds.
    pub fn set_clock_skew(&self, nanos: i64) {
        self.shared.trace.add(Event::Fault { text: &format!("the clock of {} is {nanos} ns ahead", self.state.name) });
        self.state.skew.store(nanos, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.state.name, node_ip(self.state.id))
    }
}

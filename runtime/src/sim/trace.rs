//! The log of everything that happens in a world. Its digest is the fingerprint of a run: equal seeds must give equal
//! digests. Text is made only when asked for.

use crate::sim::node::{Crash, NodeId};
use parking_lot::Mutex;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One thing that happened.
#[derive(Debug, Hash)]
pub(super) enum Event<'a> {
    LifeStarted {
        node: NodeId,
        name: &'a str,
        life: u64,
    },
    LifeEnded {
        node: NodeId,
        life: u64,
        crash: Crash,
    },
    TaskStarted {
        node: NodeId,
        task: u64,
        name: &'a str,
    },
    TaskPolled {
        task: u64,
    },
    TaskEnded {
        task: u64,
        name: &'a str,
    },
    BlockingRan {
        node: NodeId,
    },
    Sent {
        from: NodeId,
        to: NodeId,
        packet: &'a str,
        id: u64,
        bytes: u64,
    },
    Retransmitted {
        from: NodeId,
        to: NodeId,
        packet: &'a str,
        id: u64,
    },
    /// The link is cut: the packet waits until it heals or its connection dies.
    Held {
        from: NodeId,
        to: NodeId,
        packet: &'a str,
        id: u64,
    },
    Delivered {
        from: NodeId,
        to: NodeId,
        packet: &'a str,
        id: u64,
    },
    /// Nobody there to take it.
    Lost {
        from: NodeId,
        to: NodeId,
        packet: &'a str,
        id: u64,
    },
    ConnectionEnded {
        node: NodeId,
        connection: u64,
        reason: &'a str,
    },
    Disk {
        node: NodeId,
        action: &'a str,
        object: u64,
        offset: u64,
        len: u64,
    },
    DiskFault {
        node: NodeId,
        action: &'a str,
        object: u64,
    },
    Fault {
        text: &'a str,
    },
    Note {
        text: &'a str,
    },
}

/// The virtual time, in nanoseconds since the world began; shared by all who need to read it.
#[derive(Clone, Default)]
pub(super) struct Now(Arc<AtomicU64>);

impl Now {
    pub(super) fn nanos(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn advance_to(&self, nanos: u64) {
        self.0.fetch_max(nanos, Ordering::Relaxed);
    }
}

pub(super) struct Trace {
    now: Now,
    state: Mutex<State>,
}

struct State {
    digest: Digest,
    text: Option<Vec<String>>,
    /// Print every line at once: for a world that hangs or aborts.
    print: bool,
}

impl Trace {
    pub(super) fn new(now: Now) -> Self {
        let print = std::env::var_os("CAIRN_SIM_TRACE").is_some();
        Self { now, state: Mutex::new(State { digest: Digest(blake3::Hasher::new()), text: None, print }) }
    }

    pub(super) fn add(&self, event: Event<'_>) {
        let now = self.now.nanos();
        let mut state = self.state.lock();
        state.digest.write_u64(now);
        event.hash(&mut state.digest);
        if state.text.is_none() && !state.print {
            return;
        }
        let line = format!("{:>6}.{:09} {event:?}", now / 1_000_000_000, now % 1_000_000_000);
        if state.print {
            eprintln!("{line}");
        }
        if let Some(text) = &mut state.text {
            text.push(line);
        }
    }

    pub(super) fn collect_text(&self) {
        self.state.lock().text.get_or_insert_default();
    }

    pub(super) fn text(&self) -> Vec<String> {
        self.state.lock().text.clone().unwrap_or_default()
    }

    pub(super) fn digest(&self) -> u64 {
        self.state.lock().digest.finish()
    }
}

/// BLAKE3 behind the standard library's hashing traits.
struct Digest(blake3::Hasher);

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0.finalize().as_bytes()[..8]);
        u64::from_le_bytes(first)
    }
}

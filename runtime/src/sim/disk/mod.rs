//! The simulated disk of a node: a file system in memory that knows which of its bytes and names would survive a power loss.
//!
//! What it promises is what [`crate::disk`] promises, and no more:
//! - bytes: after a power loss a file holds what it held at its last good sync, plus any subset of the changes since, writes torn by 512-byte sectors;
//! - names: a directory holds what it held at its last sync, plus the first few of the changes since; a rename is all or nothing;
//! - after a failed sync, some of what was written since the last good one will never become durable, though reads still show it.

mod file;
mod handle;
mod image;
mod names;
mod state;

use crate::sim::executor::Scheduler;
use crate::sim::node::{Crash, Life, NodeId};
use crate::sim::trace::{Event, Trace};
use handle::LifeDisk;
use parking_lot::Mutex;
use state::DiskState;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What goes wrong on a disk. Probabilities are per operation, from 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct DiskFaults {
    /// A read fails with EIO.
    pub read_error: f64,
    /// A write, or any other change, fails with EIO; of a write, the beginning may have been done.
    pub write_error: f64,
    /// A sync fails with EIO.
    pub sync_error: f64,
    /// Blocking work begins this many times later than on a healthy disk.
    pub slowness: u64,
}

impl Default for DiskFaults {
    fn default() -> Self {
        Self { read_error: 0.0, write_error: 0.0, sync_error: 0.0, slowness: 1 }
    }
}

/// The disk of a node, as a test sees it: to inspect it and to hurt it. Inspecting meets no faults. Cheap to clone.
#[derive(Clone)]
pub struct SimDisk(Arc<Shared>);

/// What the handles of all lives share.
struct Shared {
    node: NodeId,
    scheduler: Arc<Scheduler>,
    trace: Arc<Trace>,
    state: Mutex<DiskState>,
}

impl SimDisk {
    pub(super) fn new(seed: u64, node: NodeId, name: &str, scheduler: Arc<Scheduler>, trace: Arc<Trace>) -> Self {
        Self(Arc::new(Shared { node, scheduler, trace, state: Mutex::new(DiskState::new(seed, name)) }))
    }

    pub(super) fn of_life(&self, life: Arc<Life>) -> LifeDisk {
        LifeDisk::new(self.0.clone(), life)
    }

    pub(super) fn slowness(&self) -> u64 {
        self.0.state.lock().faults.slowness.max(1)
    }

    pub(super) fn begin_life(&self) {
        self.0.state.lock().has_power = true;
    }

    pub(super) fn end_life(&self, crash: Crash) {
        let mut state = self.0.state.lock();
        state.end_life();
        if crash == Crash::PowerLoss {
            state.lose_power();
        }
    }

    /// Replaces the faults of this disk, from now on.
    pub fn set_faults(&self, faults: DiskFaults) {
        self.0.trace.add(Event::Fault { text: &format!("disk of node {}: {faults:?}", self.0.node.0) });
        self.0.state.lock().faults = faults;
    }

    /// Sets how many bytes the disk holds: writes that need more give ENOSPC. 1 TiB at first.
    pub fn set_capacity(&self, bytes: u64) {
        self.0.state.lock().capacity = bytes;
    }

    /// Bytes in use. Holes take none.
    pub fn used(&self) -> u64 {
        self.0.state.lock().used()
    }

    /// Changes and syncs done so far: what `crash_after` counts.
    pub fn operations(&self) -> u64 {
        self.0.state.lock().operations()
    }

    /// Lets `count` more changes and syncs (writes, lengths, names, syncs) succeed; at the next one the power fails. That operation and all
    /// after it give errors, until the node's next life begins with what survived. The processes of the node stay: see
    /// `power_off_after` to end them, too.
    pub fn crash_after(&self, count: u64) {
        self.0.state.lock().schedule_power_loss(count, false);
    }

    /// As `crash_after`, and the node itself crashes at that moment.
    pub fn power_off_after(&self, count: u64) {
        self.0.state.lock().schedule_power_loss(count, true);
    }

    /// Takes back a `crash_after` or `power_off_after` that has not happened.
    pub fn cancel_power_loss(&self) {
        self.0.state.lock().cancel_power_loss();
    }

    /// The next write to a file with this extension goes to another place of that file, and is reported as done.
    pub fn misdirect_next_write(&self, extension: &str) {
        self.0.trace.add(Event::Fault { text: &format!("the next write to a .{extension} file of node {} goes astray", self.0.node.0) });
        self.0.state.lock().misdirect_next(extension.to_owned());
    }

    /// Whether the power has failed (by `crash_after`) and no new life has begun.
    pub fn has_crashed(&self) -> bool {
        !self.0.state.lock().has_power
    }

    /// Inverts one bit of a stored file, as rot would.
    ///
    /// # Errors
    /// If there is no such file, or the offset lies beyond its end.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        self.0.trace.add(Event::Fault { text: &format!("bit {bit} of byte {offset} of {} flips", path.display()) });
        self.0.state.lock().flip_bit(path, offset, bit)
    }

    /// The content of a file, as a process of the node would read it.
    ///
    /// # Errors
    /// If there is no such file.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.state.lock().read_whole(path)
    }

    /// All files, by path.
    pub fn files(&self) -> Vec<PathBuf> {
        self.0.state.lock().all_files()
    }
}

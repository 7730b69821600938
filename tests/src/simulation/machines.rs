//! The machines of the world: starts their roles, and starts them again when they have ended, as a service manager would.

use super::client;
use super::history::Shared;
use crate::cluster::SimCluster;
use cairn_common::limits::LOG_SYNC_INTERVAL;
use cairn_runtime::sim::{Crash, Node};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often machines are looked after.
const ROUND: Duration = Duration::from_millis(10);
/// Whoever has ended by itself is started again after this time.
const PAUSE: Duration = Duration::from_millis(400);
/// How much longer than promised the log may take on a disk of normal speed.
const LOG_SLACK: Duration = Duration::from_millis(3);

/// One machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Machine {
    Master,
    Chunkserver(usize),
    Client(usize),
}

#[derive(Default)]
struct State {
    /// Machines that shall be off.
    held: BTreeSet<Machine>,
    /// Roles that have ended by themselves, and when.
    ended: Vec<(Machine, u64)>,
    /// The slowness of the master's disk: its log takes longer then.
    master_slowness: u64,
}

/// All machines.
pub struct Machines {
    pub cluster: SimCluster,
    pub shared: Arc<Shared>,
    state: Arc<Mutex<State>>,
}

impl Machines {
    pub fn new(cluster: SimCluster, shared: Arc<Shared>) -> Self {
        Self { cluster, shared, state: Arc::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding the state")
    }

    pub fn node(&self, machine: Machine) -> Node {
        match machine {
            Machine::Master => self.cluster.master.clone(),
            Machine::Chunkserver(number) => self.cluster.chunkservers[number].clone(),
            Machine::Client(number) => self.cluster.world.node(&client_name(number)),
        }
    }

    pub fn all(&self) -> Vec<Machine> {
        let servers = (0..self.cluster.chunkservers.len()).map(Machine::Chunkserver);
        let clients = (0..self.shared.plan.clients).map(Machine::Client);
        [Machine::Master].into_iter().chain(servers).chain(clients).collect()
    }

    /// Ends a machine, and keeps it off until `release`.
    pub fn crash(&self, machine: Machine, crash: Crash) {
        self.state().held.insert(machine);
        let was_running = self.node(machine).is_running();
        self.node(machine).crash(crash);
        if was_running {
            self.note_end(machine, crash);
        }
    }

    pub fn release(&self, machine: Machine) {
        self.state().held.remove(&machine);
    }

    pub fn set_master_slowness(&self, slowness: u64) {
        self.state().master_slowness = slowness;
    }

    /// What the end of a machine does to promises.
    fn note_end(&self, machine: Machine, crash: Crash) {
        match (machine, crash) {
            (Machine::Client(number), _) => self.shared.client_died(number),
            (Machine::Master, Crash::PowerLoss) => {
                let since = self.shared.now().saturating_sub(ROUND.as_nanos() as u64);
                let slowness = self.state().master_slowness.max(1) as u32;
                self.shared.master_lost_power(since, LOG_SYNC_INTERVAL + LOG_SLACK * slowness);
            }
            (Machine::Master | Machine::Chunkserver(_), _) => {}
        }
    }

    /// Looks after the machines for ever.
    pub async fn look_after(&self) {
        let mut was_running: BTreeSet<Machine> = BTreeSet::new();
        loop {
            for machine in self.all() {
                let (is_running, is_held) = (self.node(machine).is_running(), self.state().held.contains(&machine));
                if !is_running && was_running.remove(&machine) && !is_held {
                    // Nobody ended it here: its disk has taken it along.
                    self.note_end(machine, Crash::PowerLoss);
                }
                if is_running {
                    was_running.insert(machine);
                }
                if !is_held && (!is_running || self.is_due(machine)) {
                    self.start(machine);
                }
            }
            self.cluster.world.sleep(ROUND).await;
        }
    }

    /// Whether a role has ended by itself, some time ago.
    fn is_due(&self, machine: Machine) -> bool {
        let now = self.shared.now();
        let mut state = self.state();
        let before = state.ended.len();
        state.ended.retain(|(ended, at)| *ended != machine || at + PAUSE.as_nanos() as u64 > now);
        state.ended.len() < before
    }

    fn start(&self, machine: Machine) {
        self.state().ended.retain(|(ended, _)| *ended != machine);
        let (state, shared) = (self.state.clone(), self.shared.clone());
        let ended = move |reason: String| {
            shared.world.note(&format!("{machine:?} stops: {reason}"));
            state.lock().expect("nobody panics while holding the state").ended.push((machine, shared.now()));
        };
        match machine {
            Machine::Master => self.cluster.launch_master(ended),
            Machine::Chunkserver(number) => self.cluster.launch_chunkserver(number, ended),
            Machine::Client(number) => {
                let runtime = self.node(machine).runtime();
                let settings = self.cluster.client_settings(&client_name(number));
                runtime.spawn("workload", client::live(self.shared.clone(), number, runtime.clone(), settings));
            }
        }
    }

    /// Lets everybody lose power at once.
    pub fn black_out(&self) {
        for machine in self.all() {
            self.crash(machine, Crash::PowerLoss);
        }
        self.shared.blackout();
    }

    pub fn release_all(&self) {
        self.state().held.clear();
    }

    /// Ends everybody, for good.
    pub fn stop_all(&self) {
        for machine in self.all() {
            self.state().held.insert(machine);
            self.node(machine).crash(Crash::Kill);
        }
    }
}

pub fn client_name(number: usize) -> String {
    format!("client-{}", number + 1)
}

//! What breaks while the clients work: rounds of incidents, each of which begins, lasts, and ends.

use super::dice::Dice;
use super::history::Shared;
use super::machines::{Machine, Machines};
use super::plan::{Mood, Plan};
use cairn_runtime::sim::{Crash, DiskFaults, NetworkFaults};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A slow disk or peer is slower by this factor.
const SLOWNESS: u64 = 100;

/// Something that breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Incident {
    Kill(Machine),
    /// Killed and started again at once.
    Restart(Machine),
    /// The power goes after so many more changes and syncs of the disk, then it comes back.
    PowerLossAfter(Machine, u64),
    PowerLoss(Machine),
    Cut {
        from: Machine,
        to: Machine,
        both_ways: bool,
    },
    Lossy,
    SlowDisk(Machine),
    SlowPeer(Machine),
    ReadErrors(usize),
    WriteErrors(Machine),
    SyncErrors(Machine),
    FullDisk(usize),
    FlippedBits(usize),
    MisdirectedWrite(usize),
}

impl Incident {
    fn name(self) -> &'static str {
        match self {
            Incident::Kill(Machine::Master) => "master killed",
            Incident::Kill(Machine::Chunkserver(_)) => "chunkserver killed",
            Incident::Kill(Machine::Client(_)) => "client killed",
            Incident::Restart(Machine::Master) => "master restarted",
            Incident::Restart(Machine::Chunkserver(_)) => "chunkserver restarted",
            Incident::Restart(Machine::Client(_)) => "client restarted",
            Incident::PowerLossAfter(Machine::Master, _) | Incident::PowerLoss(Machine::Master) => "master lost power",
            Incident::PowerLossAfter(..) | Incident::PowerLoss(_) => "chunkserver lost power",
            Incident::Cut { both_ways: true, .. } => "link cut",
            Incident::Cut { both_ways: false, .. } => "link cut one way",
            Incident::Lossy => "lossy network",
            Incident::SlowDisk(_) => "slow disk",
            Incident::SlowPeer(_) => "slow peer",
            Incident::ReadErrors(_) => "read errors",
            Incident::WriteErrors(Machine::Master) => "write errors of the master",
            Incident::WriteErrors(_) => "write errors",
            Incident::SyncErrors(Machine::Master) => "sync errors of the master",
            Incident::SyncErrors(_) => "sync errors",
            Incident::FullDisk(_) => "full disk",
            Incident::FlippedBits(_) => "flipped bits",
            Incident::MisdirectedWrite(_) => "misdirected write",
        }
    }
}

/// Breaks things until the plan's rounds are over.
pub struct Weather<'a> {
    machines: &'a Machines,
    shared: &'a Arc<Shared>,
    dice: Dice,
}

impl<'a> Weather<'a> {
    pub fn new(machines: &'a Machines) -> Self {
        let shared = &machines.shared;
        Self { machines, shared, dice: Dice::of(&shared.world, "weather") }
    }

    fn plan(&self) -> &Plan {
        &self.shared.plan
    }

    pub async fn rage(&self) {
        self.set_clocks();
        for _ in 0..self.plan().rounds {
            self.shared.world.sleep(self.pause()).await;
            let incidents: Vec<Incident> = (0..1 + self.dice.below(3)).map(|_| self.draw()).collect();
            for incident in &incidents {
                self.shared.count_fault(incident.name());
                self.shared.world.note(&format!("{incident:?} begins"));
                self.begin(*incident);
                self.shared.world.sleep(self.dice.millis(0, 200)).await;
            }
            self.shared.world.sleep(self.duration()).await;
            for incident in &incidents {
                self.shared.world.note(&format!("{incident:?} ends"));
                self.end(*incident);
            }
        }
    }

    fn pause(&self) -> Duration {
        if self.plan().patience { self.dice.millis(0, 600_000) } else { self.dice.millis(0, 1_500) }
    }

    fn duration(&self) -> Duration {
        match self.dice.below(10) {
            0..6 => self.dice.millis(50, 2_000),
            6..9 => self.dice.millis(2_000, 8_000),
            _ => self.dice.millis(8_000, 25_000),
        }
    }

    fn set_clocks(&self) {
        let most = self.plan().skew.as_nanos() as u64;
        if most == 0 {
            return;
        }
        self.shared.count_fault("skewed clocks");
        for machine in self.machines.all() {
            let skew = self.dice.below(2 * most) as i64 - most as i64;
            self.machines.node(machine).set_clock_skew(skew);
        }
    }

    fn weak(&self) -> usize {
        *self.dice.pick(&self.plan().weak)
    }

    /// A chunkserver that may be away for some time.
    fn frail(&self) -> usize {
        if self.plan().mood >= Mood::Severe { self.dice.index(self.plan().chunkservers) } else { self.weak() }
    }

    fn client(&self) -> Machine {
        Machine::Client(self.dice.index(self.plan().clients))
    }

    fn draw(&self) -> Incident {
        match self.dice.below(100) {
            0..9 => Incident::Kill(Machine::Master),
            9..14 => Incident::Restart(Machine::Master),
            14..20 => Incident::PowerLossAfter(Machine::Master, self.dice.below(60)),
            20..22 => Incident::PowerLoss(Machine::Master),
            22..32 => Incident::Kill(Machine::Chunkserver(self.frail())),
            32..36 => Incident::Restart(Machine::Chunkserver(self.frail())),
            36..44 => Incident::PowerLossAfter(Machine::Chunkserver(self.weak()), self.dice.below(80)),
            44..47 => Incident::PowerLoss(Machine::Chunkserver(self.weak())),
            47..51 => Incident::Kill(self.client()),
            51..54 => Incident::Restart(self.client()),
            54..66 => self.draw_cut(),
            66..72 => Incident::Lossy,
            72..75 => Incident::SlowDisk(*self.dice.pick(&[Machine::Master, Machine::Chunkserver(self.frail())])),
            75..79 => Incident::SlowPeer(*self.dice.pick(&[Machine::Master, Machine::Chunkserver(self.frail())])),
            79..82 => Incident::ReadErrors(self.weak()),
            82..86 => Incident::WriteErrors(*self.dice.pick(&[Machine::Master, Machine::Chunkserver(self.weak())])),
            86..90 => Incident::SyncErrors(*self.dice.pick(&[Machine::Master, Machine::Chunkserver(self.weak())])),
            90..93 => Incident::FullDisk(self.frail()),
            93..98 => Incident::FlippedBits(self.weak()),
            _ => Incident::MisdirectedWrite(self.weak()),
        }
    }

    fn draw_cut(&self) -> Incident {
        let server = Machine::Chunkserver(self.frail());
        let choices = [(Machine::Master, self.client()), (Machine::Master, server), (server, self.client())];
        let (a, b) = *self.dice.pick(&choices);
        let (from, to) = if self.dice.percent(50) { (a, b) } else { (b, a) };
        Incident::Cut { from, to, both_ways: self.dice.percent(50) }
    }

    fn begin(&self, incident: Incident) {
        match incident {
            Incident::Kill(machine) => self.machines.crash(machine, Crash::Kill),
            Incident::Restart(machine) => {
                self.machines.crash(machine, Crash::Kill);
                self.machines.release(machine);
            }
            Incident::PowerLossAfter(machine, operations) => self.machines.node(machine).disk().power_off_after(operations),
            Incident::PowerLoss(machine) => self.machines.crash(machine, Crash::PowerLoss),
            Incident::Cut { from, to, both_ways } => {
                let (from, to) = (self.machines.node(from), self.machines.node(to));
                let network = self.shared.world.network();
                if both_ways { network.partition(&from, &to) } else { network.partition_one_way(&from, &to) }
            }
            Incident::Lossy => self.shared.world.network().set_faults(NetworkFaults::lossy()),
            Incident::SlowDisk(machine) => {
                if machine == Machine::Master {
                    self.machines.set_master_slowness(SLOWNESS);
                }
                self.set_disk(machine, DiskFaults { slowness: SLOWNESS, ..DiskFaults::default() });
            }
            Incident::SlowPeer(machine) => self.shared.world.network().set_slowness(&self.machines.node(machine), SLOWNESS as u32),
            Incident::ReadErrors(server) => {
                self.set_disk(Machine::Chunkserver(server), DiskFaults { read_error: 0.2, ..DiskFaults::default() });
            }
            Incident::WriteErrors(machine) => self.set_disk(machine, DiskFaults { write_error: 0.1, ..DiskFaults::default() }),
            Incident::SyncErrors(machine) => self.set_disk(machine, DiskFaults { sync_error: 0.2, ..DiskFaults::default() }),
            Incident::FullDisk(server) => {
                let disk = self.machines.node(Machine::Chunkserver(server)).disk();
                disk.set_capacity(disk.used() + self.dice.below(2 << 20));
            }
            Incident::FlippedBits(server) => self.flip_bits(server),
            Incident::MisdirectedWrite(server) => {
                self.machines.node(Machine::Chunkserver(server)).disk().misdirect_next_write(SEGMENT_EXTENSION);
            }
        }
    }

    fn end(&self, incident: Incident) {
        match incident {
            Incident::Kill(machine) | Incident::PowerLoss(machine) => self.machines.release(machine),
            Incident::Restart(_) | Incident::FlippedBits(_) | Incident::MisdirectedWrite(_) => {}
            Incident::PowerLossAfter(machine, _) => self.machines.node(machine).disk().cancel_power_loss(),
            Incident::Cut { from, to, .. } => {
                self.shared.world.network().heal_between(&self.machines.node(from), &self.machines.node(to));
            }
            Incident::Lossy => self.shared.world.network().set_faults(NetworkFaults::default()),
            Incident::SlowPeer(machine) => self.shared.world.network().set_slowness(&self.machines.node(machine), 1),
            Incident::SlowDisk(machine) => {
                self.machines.set_master_slowness(1);
                self.set_disk(machine, DiskFaults::default());
            }
            Incident::ReadErrors(server) => self.end(Incident::WriteErrors(Machine::Chunkserver(server))),
            Incident::WriteErrors(machine) | Incident::SyncErrors(machine) => {
                self.set_disk(machine, DiskFaults::default());
                // A target that has failed serves again when it is opened anew; a master has ended by itself.
                if machine != Machine::Master {
                    self.machines.crash(machine, Crash::Kill);
                    self.machines.release(machine);
                }
            }
            Incident::FullDisk(server) => self.machines.node(Machine::Chunkserver(server)).disk().set_capacity(1 << 40),
        }
    }

    fn set_disk(&self, machine: Machine, faults: DiskFaults) {
        self.machines.node(machine).disk().set_faults(faults);
    }

    fn flip_bits(&self, server: usize) {
        let disk = self.machines.node(Machine::Chunkserver(server)).disk();
        let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == SEGMENT_EXTENSION);
        let segments: Vec<PathBuf> = disk.files().into_iter().filter(is_segment).collect();
        for _ in 0..1 + self.dice.below(4) {
            let Some(path) = segments.get(self.dice.index(segments.len().max(1))) else { return };
            let len = disk.read(path).map_or(0, |content| content.len() as u64);
            // The file may be gone, or empty; then there is nothing to harm.
            let _ = disk.flip_bit(path, self.dice.below(len), self.dice.below(8) as u8);
        }
    }
}

const SEGMENT_EXTENSION: &str = "seg";

//! What the master was asked, and what two looks come to. Pure.

use crate::commands::repair::{Repair, Scrub};
use cairn_common::ids::{ServerId, SessionId};
use cairn_common::metrics::Latencies;
use cairn_common::wire::load::{Load, LoadReport};
use cairn_common::wire::master::{SessionStatus, Status};
use std::collections::BTreeMap;
use std::time::Duration;

/// The answers of one look.
pub struct Sample {
    pub status: Status,
    pub loads: LoadReport,
}

/// Who told of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Teller {
    Master,
    Server(ServerId),
    Session(SessionId),
}

/// The last two different words of somebody.
#[derive(Debug, Clone, Copy)]
struct Words {
    before: Option<Load>,
    now: Load,
}

/// Everything that is shown.
#[derive(Default)]
pub struct View {
    words: BTreeMap<Teller, Words>,
    /// Rates are since the first look, rather than since the last.
    is_since_first: bool,
    pub status: Option<Status>,
    /// Why the last look failed.
    pub trouble: Option<String>,
}

/// What somebody does, per second and between two words.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Activity {
    pub read_bytes: f64,
    pub written_bytes: f64,
    pub operations: f64,
    pub queue: u64,
    pub reads: Percentiles,
    pub writes: Percentiles,
}

/// Half of them, and all but one in a hundred, did not take longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Percentiles {
    pub half: Option<Duration>,
    pub most: Option<Duration>,
}

impl Percentiles {
    fn of(latencies: &Latencies) -> Self {
        Self { half: latencies.percentile(0.5), most: latencies.percentile(0.99) }
    }
}

impl View {
    pub fn new(is_since_first: bool) -> Self {
        Self { is_since_first, ..Self::default() }
    }

    /// Whether it is drawn again with each look.
    pub fn is_live(&self) -> bool {
        !self.is_since_first
    }

    pub fn take(&mut self, sample: Sample) {
        let Sample { status, loads } = sample;
        let master = std::iter::once((Teller::Master, loads.master));
        let servers = loads.servers.into_iter().map(|(id, load)| (Teller::Server(id), load));
        let sessions = loads.sessions.into_iter().map(|(id, load)| (Teller::Session(id), load));
        let mut words = BTreeMap::new();
        for (teller, now) in master.chain(servers).chain(sessions) {
            let known = self.words.get(&teller).copied();
            let next = match known {
                None => Words { before: None, now },
                Some(known) if known.now.at_ms == now.at_ms => known,
                Some(Words { before: Some(before), .. }) if self.is_since_first => Words { before: Some(before), now },
                Some(known) => Words { before: Some(known.now), now },
            };
            words.insert(teller, next);
        }
        (self.words, self.status, self.trouble) = (words, Some(status), None);
    }

    /// Whether there are two words of everybody who is there.
    pub fn is_complete(&self) -> bool {
        let here = self.status.iter().flat_map(|status| &status.sessions).filter(|session| session.address.is_some());
        let has_told = |session: &SessionStatus| self.words.contains_key(&Teller::Session(session.id));
        here.into_iter().all(has_told) && self.words.values().all(|words| words.before.is_some())
    }

    pub fn activity(&self, teller: Teller) -> Option<Activity> {
        self.words.get(&teller).and_then(Words::activity)
    }

    pub fn repair(&self) -> Repair {
        self.status.as_ref().map(Repair::new).unwrap_or_default()
    }

    pub fn scrub(&self) -> Scrub {
        self.status.as_ref().map(Scrub::new).unwrap_or_default()
    }

    /// Over all clients: what applications see.
    pub fn clients(&self) -> Activity {
        let all = self.words.iter().filter(|(teller, _)| matches!(teller, Teller::Session(_))).filter_map(|(_, words)| words.activity());
        all.fold(Activity::default(), |sum, one| Activity {
            read_bytes: sum.read_bytes + one.read_bytes,
            written_bytes: sum.written_bytes + one.written_bytes,
            operations: sum.operations + one.operations,
            queue: sum.queue + one.queue,
            ..sum
        })
    }
}

impl Words {
    fn activity(&self) -> Option<Activity> {
        let Self { before, now } = self;
        let before = before.as_ref()?;
        // A process that began anew counts from zero.
        let is_same_life = now.at_ms > before.at_ms;
        let before = if is_same_life { *before } else { Load::default() };
        let seconds = (now.at_ms - before.at_ms) as f64 / 1000.0;
        if seconds <= 0.0 {
            return None;
        }
        let (reads, writes) = (now.reads.since(&before.reads), now.writes.since(&before.writes));
        let (syncs, others) = (now.syncs.since(&before.syncs), now.others.since(&before.others));
        let operations = [&reads, &writes, &syncs, &others].into_iter().map(Latencies::count).sum::<u64>();
        Some(Activity {
            read_bytes: now.read_bytes.saturating_sub(before.read_bytes) as f64 / seconds,
            written_bytes: now.written_bytes.saturating_sub(before.written_bytes) as f64 / seconds,
            operations: operations as f64 / seconds,
            queue: now.queue,
            reads: Percentiles::of(&reads),
            writes: Percentiles::of(&writes.plus(&syncs)),
        })
    }
}

#[cfg(test)]
pub mod tests {
    use super::{Sample, Teller, View};
    use cairn_common::ids::{MapEpoch, ServerId};
    use cairn_common::metrics::Histogram;
    use cairn_common::wire::load::{Load, LoadReport};
    use cairn_common::wire::master::Status;
    use std::net::SocketAddr;
    use std::time::Duration;

    pub fn status() -> Status {
        Status {
            cluster: [0; 16],
            epoch: MapEpoch(1),
            master_address: SocketAddr::from(([10, 0, 0, 1], 7440)),
            pools: Vec::new(),
            servers: Vec::new(),
            sessions: Vec::new(),
            inodes: 0,
            chunks: 0,
            chunk_bytes: 0,
            notes: Vec::new(),
            compaction: Default::default(),
        }
    }

    /// After so many seconds of 100 reads a second, each of 1 MiB and 1 ms.
    fn load(seconds: u64) -> Load {
        let reads = Histogram::default();
        (0..seconds * 100).for_each(|_| reads.record(Duration::from_millis(1)));
        Load { at_ms: seconds * 1000, queue: 3, read_bytes: (seconds * 100) << 20, reads: reads.snapshot(), ..Load::default() }
    }

    #[test]
    fn two_words_make_a_rate_and_a_repeated_one_changes_nothing() {
        let teller = Teller::Server(ServerId(1));
        let mut view = View::default();
        let mut say = |seconds| {
            let loads = LoadReport { servers: vec![(ServerId(1), load(seconds))], ..LoadReport::default() };
            view.take(Sample { status: status(), loads });
            view.activity(teller)
        };
        assert_eq!(say(10), None);
        let after = say(12).unwrap();
        assert_eq!((after.operations, after.read_bytes, after.queue), (100.0, (100 << 20) as f64, 3));
        let half = after.reads.half.unwrap();
        assert!(half > Duration::from_micros(512) && half <= Duration::from_micros(1024), "{half:?}");
        assert_eq!(say(12), Some(after));
        view.is_since_first = true;
        let mut say = |seconds| {
            let loads = LoadReport { servers: vec![(ServerId(1), load(seconds))], ..LoadReport::default() };
            view.take(Sample { status: status(), loads });
            view.activity(teller)
        };
        assert_eq!(say(15).unwrap().operations, 100.0, "since 10 s");
        // It was started anew.
        assert_eq!(say(1).unwrap().operations, 100.0);
    }
}

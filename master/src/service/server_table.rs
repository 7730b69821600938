//! When each chunkserver and each target was heard, and what they reported. Soft state. What must change in the map because of
//! it is decided here, and made to last by a command.
//!
//! | a target is | was heard within `suspect_after` | silent for longer | silent for `dead_after` |
//! |---|---|---|---|
//! | joining | stays | suspect | dead |
//! | serving | stays | suspect | dead |
//! | suspect | serving | stays | dead |
//! | dead | serving | stays | stays |
//! | draining, removed | stays | stays | stays |
//!
//! A target that reports to have failed counts as silent. After a start of the master everybody counts as just heard.

use crate::state::command::TargetChange;
use cairn_common::ids::{Incarnation, ServerId, TargetId};
use cairn_common::map::{Target, TargetState};
use cairn_common::wire::chunkserver::{TargetHealth, TargetStatus};
use cairn_runtime::clock::Moment;
use cairn_runtime::network::Connection;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A chunkserver that has registered since the start of the master.
struct Registered {
    /// In its certificate: nobody else may report for it.
    name: String,
    incarnation: Incarnation,
    heard: Moment,
    /// Over which it registered; requests to it go the same way.
    connection: Arc<dyn Connection>,
}

struct Report {
    heard: Moment,
    status: TargetStatus,
}

/// See the module.
pub struct ServerTable {
    started: Moment,
    suspect_after: Duration,
    dead_after: Duration,
    servers: BTreeMap<ServerId, Registered>,
    reports: BTreeMap<TargetId, Report>,
    /// Targets that were announced, and when.
    announced: BTreeMap<TargetId, Moment>,
}

impl ServerTable {
    pub fn new(started: Moment, suspect_after: Duration, dead_after: Duration) -> Self {
        Self { started, suspect_after, dead_after, servers: BTreeMap::new(), reports: BTreeMap::new(), announced: BTreeMap::new() }
    }

    pub fn register(
        &mut self,
        server: ServerId,
        name: &str,
        incarnation: Incarnation,
        targets: &[TargetId],
        connection: Arc<dyn Connection>,
        now: Moment,
    ) {
        self.servers.insert(server, Registered { name: name.to_owned(), incarnation, heard: now, connection });
        for target in targets {
            self.announced.insert(*target, now);
        }
    }

    /// Whether that life of the server has registered, under that name.
    pub fn is_registered(&self, server: ServerId, name: &str, incarnation: Incarnation) -> bool {
        self.servers.get(&server).is_some_and(|known| known.name == name && known.incarnation == incarnation)
    }

    /// Takes in a report of a registered server about targets of its own.
    pub fn report(&mut self, server: ServerId, targets: Vec<TargetStatus>, now: Moment) {
        if let Some(known) = self.servers.get_mut(&server) {
            known.heard = now;
        }
        for status in targets {
            if status.health != TargetHealth::Failed {
                self.announced.insert(status.target, now);
            }
            self.reports.insert(status.target, Report { heard: now, status });
        }
    }

    /// When a server was last heard, if ever since the start.
    pub fn heard(&self, server: ServerId) -> Option<Moment> {
        self.servers.get(&server).map(|registered| registered.heard)
    }

    /// The last report about a target.
    pub fn status(&self, target: TargetId) -> Option<&TargetStatus> {
        self.reports.get(&target).map(|report| &report.status)
    }

    /// The way to a server, if it has registered and the connection still stands.
    pub fn connection(&self, server: ServerId) -> Option<Arc<dyn Connection>> {
        self.servers.get(&server).map(|registered| registered.connection.clone()).filter(|connection| !connection.is_closed())
    }

    /// What must change in the map.
    pub fn changes(&self, targets: &[Target], now: Moment) -> Vec<TargetChange> {
        targets.iter().filter_map(|target| self.change(target, now)).collect()
    }

    fn change(&self, target: &Target, now: Moment) -> Option<TargetChange> {
        let state = self.judge(target, now);
        let full = self.reports.get(&target.id).and_then(|report| match report.status.health {
            TargetHealth::Good => Some(false),
            TargetHealth::Full => Some(true),
            TargetHealth::Failed => None,
        });
        let change = TargetChange {
            target: target.id,
            state: Some(state).filter(|state| *state != target.state),
            full: full.filter(|full| *full != target.full),
            capacity_bytes: None,
        };
        (change.state.is_some() || change.full.is_some()).then_some(change)
    }

    fn judge(&self, target: &Target, now: Moment) -> TargetState {
        let heard = self.announced.get(&target.id).copied();
        let silent = now.since(heard.unwrap_or(self.started));
        match target.state {
            state @ (TargetState::Draining | TargetState::Removed) => state,
            // A start of the master is no sign of life.
            TargetState::Dead if heard.is_none() => TargetState::Dead,
            _ if silent >= self.dead_after => TargetState::Dead,
            TargetState::Dead if silent >= self.suspect_after => TargetState::Dead,
            TargetState::Suspect if heard.is_none() => TargetState::Suspect,
            _ if silent >= self.suspect_after => TargetState::Suspect,
            TargetState::Joining => TargetState::Joining,
            TargetState::Serving | TargetState::Suspect | TargetState::Dead => TargetState::Serving,
        }
    }

    /// Since when each target is silent, for the log.
    pub fn silent_for(&self, target: TargetId, now: Moment) -> Duration {
        now.since(self.reports.get(&target).map_or(self.started, |report| report.heard))
    }
}

#[cfg(test)]
mod tests {
    use super::ServerTable;
    use cairn_common::ids::{ServerId, TargetId};
    use cairn_common::map::{Target, TargetState};
    use cairn_runtime::clock::Moment;
    use std::collections::BTreeMap;
    use std::net::SocketAddr;
    use std::time::Duration;

    const ID: TargetId = TargetId(1);

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    fn target(state: TargetState) -> Target {
        let address = SocketAddr::from(([10, 0, 0, 1], 1));
        Target { id: ID, server: ServerId(1), address, state, full: false, capacity_bytes: 1, labels: BTreeMap::new() }
    }

    /// The state after `silence` seconds, of a target that was heard (or never, since the start).
    fn judge(state: TargetState, was_heard: bool, silence: u64) -> TargetState {
        let mut table = ServerTable::new(at(0), Duration::from_secs(3), Duration::from_secs(30));
        let mut from = 0;
        if was_heard {
            from = 100;
            table.announced.insert(ID, at(from));
        }
        table.judge(&target(state), at(from + silence))
    }

    #[test]
    fn silence_makes_suspect_then_dead_and_a_report_brings_back() {
        use TargetState::{Dead, Draining, Joining, Removed, Serving, Suspect};
        let table = [
            // state, after 1 s, after 5 s, after 40 s
            (Joining, [Joining, Suspect, Dead]),
            (Serving, [Serving, Suspect, Dead]),
            (Suspect, [Serving, Suspect, Dead]),
            (Dead, [Serving, Dead, Dead]),
            (Draining, [Draining, Draining, Draining]),
            (Removed, [Removed, Removed, Removed]),
        ];
        for (state, expected) in table {
            assert_eq!([1, 5, 40].map(|silence| judge(state, true, silence)), expected, "{state:?}");
        }
    }

    #[test]
    fn after_a_restart_of_the_master_the_silent_get_their_time_but_the_dead_stay_dead() {
        use TargetState::{Dead, Serving, Suspect};
        assert_eq!([1, 5, 40].map(|silence| judge(Serving, false, silence)), [Serving, Suspect, Dead]);
        assert_eq!([1, 5, 40].map(|silence| judge(Suspect, false, silence)), [Suspect, Suspect, Dead]);
        assert_eq!([1, 5, 40].map(|silence| judge(Dead, false, silence)), [Dead; 3]);
    }
}

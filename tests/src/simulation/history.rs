//! What clients did and were promised, kept outside of the world, so that no crash reaches it.

use super::plan::{Mood, Plan};
use crate::reference::directory::{DirectoryModel, FileId};
use crate::reference::file::FileModel;
use cairn_runtime::sim::World;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// A directory in which one life of a client works, until something happens to either.
pub struct Workplace {
    pub name: String,
    pub client: usize,
    pub names: DirectoryModel,
    pub files: BTreeMap<FileId, FileModel>,
}

impl Workplace {
    pub fn file(&mut self, file: FileId) -> &mut FileModel {
        self.files.get_mut(&file).expect("a file of the model is never forgotten")
    }

    /// Nobody works here any more, and what was under way may have been done or not.
    pub fn abandon(&mut self) {
        if !self.names.is_frozen() {
            self.names.freeze(None);
        }
        self.files.values_mut().for_each(FileModel::abandoned);
    }

    /// Data that was never closed was sent by itself, which no promise of durability follows from.
    pub fn written_back(&mut self) {
        self.files.values_mut().for_each(|file| file.flushed(u64::MAX));
    }

    fn master_lost_power(&mut self, since: u64) {
        self.names.freeze(Some(since));
        self.files.values_mut().for_each(|file| file.master_lost_power(since));
    }
}

/// The file that clients pass on to each other, opened and closed by one after the other.
pub struct Baton {
    pub generation: u64,
    pub file: FileModel,
    pub holder: Option<usize>,
    /// The generation that is no longer used: its name and what it may hold.
    pub past: Vec<(String, FileModel)>,
}

impl Baton {
    pub fn name(&self) -> String {
        format!("baton-{}", self.generation)
    }

    /// Something happened to it: the next holder makes a new one.
    fn retire(&mut self, blackouts: bool) {
        let past = std::mem::replace(&mut self.file, FileModel::new(blackouts));
        let name = self.name();
        self.past.push((name, past));
        self.generation += 1;
        self.holder = None;
    }
}

/// How often something was done.
pub type Counts = BTreeMap<&'static str, u64>;

/// See the module.
pub struct History {
    pub workplaces: Vec<Workplace>,
    pub baton: Baton,
    next_file: FileId,
    next_write: u64,
    /// What was found wrong while it happened.
    pub violations: Vec<String>,
    pub operations: Counts,
    pub faults: Counts,
    /// Clients that have done all they were to do.
    pub finished: Vec<bool>,
    /// Operations may fail now.
    pub failures_excused: bool,
    /// Things still break: clients go on until it is over.
    pub is_stormy: bool,
    /// Nothing breaks any more: everything must work.
    pub is_healed: bool,
}

/// The history, as all parts of the simulation see it.
pub struct Shared {
    pub world: World,
    pub plan: Plan,
    history: Mutex<History>,
    /// Held by the client that has the baton.
    pub baton_turn: tokio::sync::Mutex<()>,
}

impl Shared {
    pub fn new(world: World, plan: Plan) -> Self {
        let blackouts = plan.has_blackout();
        let history = History {
            workplaces: Vec::new(),
            baton: Baton { generation: 0, file: FileModel::new(blackouts), holder: None, past: Vec::new() },
            next_file: 0,
            // The first numbers stand for contents that are written again and again.
            next_write: 1_000,
            violations: Vec::new(),
            operations: Counts::new(),
            faults: Counts::new(),
            finished: vec![false; plan.clients],
            failures_excused: plan.mood >= Mood::Severe,
            is_stormy: true,
            is_healed: false,
        };
        Self { world, plan, history: Mutex::new(history), baton_turn: tokio::sync::Mutex::new(()) }
    }

    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("nobody panics while holding the history")
    }

    /// Virtual time in nanoseconds.
    pub fn now(&self) -> u64 {
        self.world.now().nanos()
    }

    pub fn violation(&self, text: String) {
        self.world.note(&format!("VIOLATION {text}"));
        self.history().violations.push(text);
    }

    pub fn count_fault(&self, kind: &'static str) {
        *self.history().faults.entry(kind).or_default() += 1;
    }

    pub fn count_operation(&self, kind: &'static str) {
        *self.history().operations.entry(kind).or_default() += 1;
    }

    /// A client has died.
    pub fn client_died(&self, client: usize) {
        let blackouts = self.plan.has_blackout();
        let mut history = self.history();
        for workplace in history.workplaces.iter_mut().filter(|workplace| workplace.client == client) {
            workplace.abandon();
        }
        if history.baton.holder == Some(client) {
            history.baton.file.abandoned();
            history.baton.retire(blackouts);
        }
    }

    /// The master has lost power some time after `since`; what it did within `unsynced` before may be undone.
    pub fn master_lost_power(&self, since: u64, unsynced: Duration) {
        let since = since.saturating_sub(u64::try_from(unsynced.as_nanos()).unwrap_or(u64::MAX));
        let blackouts = self.plan.has_blackout();
        let mut history = self.history();
        for workplace in &mut history.workplaces {
            workplace.master_lost_power(since);
        }
        history.baton.file.master_lost_power(since);
        history.baton.retire(blackouts);
        // The session may be among what was forgotten.
        history.failures_excused = true;
    }

    pub fn blackout(&self) {
        let mut history = self.history();
        for file in history.workplaces.iter_mut().flat_map(|workplace| workplace.files.values_mut()) {
            file.blacked_out();
        }
        history.baton.file.blacked_out();
        history.baton.past.iter_mut().for_each(|(_, file)| file.blacked_out());
    }
}

impl History {
    pub fn fresh_file(&mut self) -> FileId {
        self.next_file += 1;
        self.next_file
    }

    pub fn fresh_write(&mut self) -> u64 {
        self.next_write += 1;
        self.next_write
    }
}

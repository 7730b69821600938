//! The store in the simulated world: whatever happens to process and power, the state after the next start is that after some
//! prefix of the commands, and the prefix holds all that was synced.

use super::log::record::record_bytes;
use super::log::segment::{SEGMENT_HEADER_BYTES, segment_path};
use super::table_store::{Machine, OpenError, Store, StoreSettings};
use super::tables::{Batch, Reader, StoreError, Table};
use cairn_common::codec;
use cairn_common::ids::LogIndex;
use cairn_common::time::Timestamp;
use cairn_runtime::Runtime;
use cairn_runtime::disk::OpenMode;
use cairn_runtime::real::run_role_here;
use cairn_runtime::sim::{Crash, DiskFaults, Node, block_on_world, for_each_seed};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

/// Appends text to a row and deletes rows that get long: what comes of a command depends on all before it.
struct Toy;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Append {
    at: Timestamp,
    row: u8,
    text: Vec<u8>,
}

const LONG: usize = 60;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

impl Machine for Toy {
    type Command = Append;
    type Outcome = usize;

    fn time(command: &Append) -> Timestamp {
        command.at
    }

    fn apply(batch: &mut Batch<'_>, _: LogIndex, command: &Append) -> Result<usize, StoreError> {
        let key = [command.row];
        let mut value = batch.get(Table::Inodes, &key)?.map(|value| value.to_vec()).unwrap_or_default();
        value.extend_from_slice(&command.text);
        let len = value.len();
        if len > LONG {
            batch.delete(Table::Inodes, &key)
        } else {
            batch.put(Table::Inodes, &key, value)
        }
        Ok(len)
    }
}

fn model(rows: &Rows, command: &Append) -> Rows {
    let mut rows = rows.clone();
    let value = rows.entry(vec![command.row]).or_default();
    value.extend_from_slice(&command.text);
    if value.len() > LONG {
        rows.remove(&[command.row][..]);
    }
    rows
}

fn settings() -> StoreSettings {
    StoreSettings {
        log_segment_bytes: 2048,
        memtable_bytes: 1500,
        cache_bytes: 1 << 20,
        flush_interval: Duration::from_millis(40),
        ..StoreSettings::new("/master")
    }
}

async fn open(runtime: &Runtime) -> Result<Store<Toy>, OpenError> {
    Store::open(runtime.clone(), settings()).await
}

fn rows(store: &Store<Toy>) -> Rows {
    let mut rows = Rows::new();
    let visit = &mut |key: &[u8], value: &[u8]| {
        rows.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    };
    store.read(|reader| reader.scan(Table::Inodes, &[], None, false, visit)).unwrap();
    rows
}

fn command(store: &Store<Toy>, runtime: &Runtime) -> Append {
    let [row, len] = runtime.random_bytes();
    let text = vec![row.wrapping_add(len); usize::from(len % 50)];
    Append { at: store.next_time(runtime.wall()), row: row % 20, text }
}

/// States after 0, 1, 2, ... commands, and how many of them were promised to survive.
struct History {
    states: Vec<Rows>,
    synced: u64,
}

impl History {
    fn new() -> Self {
        Self { states: vec![Rows::new()], synced: 0 }
    }

    fn last(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    fn add(&mut self, command: &Append) {
        let next = model(&self.states[self.states.len() - 1], command);
        self.states.push(next);
    }

    /// Judges a store after a restart, and takes what it holds for what happened.
    fn judge(&mut self, store: &Store<Toy>, lost_power: bool) {
        let last = store.last().0;
        assert!(last <= self.last(), "command {last} was never submitted");
        assert!(self.synced <= last, "command {} was synced and is lost", self.synced);
        assert!(lost_power || last == self.last(), "a crash of the process lost commands");
        assert_eq!(rows(store), self.states[last as usize]);
        self.states.truncate(last as usize + 1);
    }
}

/// Submits commands until enough are done or the store fails.
async fn work(runtime: &Runtime, store: &Store<Toy>, count: u64, history: &mut History) {
    for _ in 0..count {
        if store.admit().await.is_err() {
            return;
        }
        let next = command(store, runtime);
        // Even if it fails now, the command may be found later.
        history.add(&next);
        let Ok((_, index)) = store.submit(&next) else { return };
        assert_eq!(index.0, history.last());
        match runtime.random_u64() % 8 {
            0 if store.synced(index).await.is_ok() => history.synced = index.0,
            1 => runtime.sleep(Duration::from_millis(runtime.random_u64() % 30)).await,
            _ => {}
        }
    }
}

#[test]
fn what_was_synced_survives_and_what_survives_is_a_prefix() {
    for_each_seed(60, |seed| {
        block_on_world(seed, |world| async move {
            let node = world.node("master");
            let mut history = History::new();
            let mut lost_power = false;
            for _ in 0..6 {
                let runtime = node.runtime();
                let strikes = runtime.random_u64().is_multiple_of(2);
                if strikes {
                    node.disk().crash_after(runtime.random_u64() % 150);
                }
                match open(&runtime).await {
                    Ok(store) => {
                        history.judge(&store, lost_power);
                        work(&runtime, &store, runtime.random_u64() % 120, &mut history).await;
                        lost_power = crash(&node, &runtime, strikes);
                    }
                    Err(error) => {
                        assert!(node.disk().has_crashed(), "a start failed: {error}");
                        lost_power = true;
                        node.crash(Crash::PowerLoss);
                    }
                }
            }
        });
    });
}

fn crash(node: &Node, runtime: &Runtime, power: bool) -> bool {
    let power = power || runtime.random_u64().is_multiple_of(2);
    node.crash(if power { Crash::PowerLoss } else { Crash::Kill });
    power
}

#[test]
fn everything_is_synced_soon_without_asking() {
    block_on_world(1, |world| async move {
        let node = world.node("master");
        let runtime = node.runtime();
        let store = open(&runtime).await.unwrap();
        let mut history = History::new();
        for _ in 0..5 {
            let next = command(&store, &runtime);
            history.add(&next);
            store.submit(&next).unwrap();
        }
        runtime.sleep(Duration::from_millis(15)).await;
        node.crash(Crash::PowerLoss);
        history.synced = 5;
        history.judge(&open(&node.runtime()).await.unwrap(), true);
    });
}

#[test]
fn flushing_empties_the_log_and_loses_nothing() {
    block_on_world(2, |world| async move {
        let node = world.node("master");
        let runtime = node.runtime();
        let store = open(&runtime).await.unwrap();
        let mut history = History::new();
        work(&runtime, &store, 500, &mut history).await;
        assert_eq!(history.last(), 500);
        store.flush().await.unwrap();
        let segments = node.disk().files().into_iter().filter(|path| path.extension().is_some_and(|suffix| suffix == "log")).count();
        assert_eq!(segments, 1, "old segments must go");
        node.crash(Crash::PowerLoss);
        history.synced = 500;
        history.judge(&open(&node.runtime()).await.unwrap(), true);
    });
}

#[test]
fn memory_stays_bounded_when_the_disk_is_slow() {
    block_on_world(3, |world| async move {
        let node = world.node("master");
        let runtime = node.runtime();
        let store = open(&runtime).await.unwrap();
        node.disk().set_faults(DiskFaults { slowness: 2000, ..DiskFaults::default() });
        let started = runtime.now();
        for number in 0..400_u16 {
            store.admit().await.unwrap();
            let text = number.to_le_bytes().to_vec();
            store.submit(&Append { at: store.next_time(runtime.wall()), row: number as u8, text }).unwrap();
        }
        assert!(runtime.now().since(started) > Duration::from_millis(500), "these are many memtables, each of which takes long to write");
    });
}

#[test]
fn a_failed_sync_or_write_ends_the_service() {
    for faults in [DiskFaults { sync_error: 1.0, ..DiskFaults::default() }, DiskFaults { write_error: 1.0, ..DiskFaults::default() }] {
        block_on_world(4, |world| async move {
            let node = world.node("master");
            let runtime = node.runtime();
            let store = open(&runtime).await.unwrap();
            node.disk().set_faults(faults);
            let refused = match store.submit(&command(&store, &runtime)) {
                Ok((_, index)) => store.synced(index).await.unwrap_err(),
                Err(error) => error,
            };
            assert_eq!(store.failed().await, refused);
            node.disk().set_faults(DiskFaults::default());
            assert_eq!(store.submit(&command(&store, &runtime)).unwrap_err(), refused, "it must not go on as if nothing had happened");
            assert_eq!(store.admit().await.unwrap_err(), refused);
        });
    }
}

#[test]
fn a_second_master_is_turned_away() {
    block_on_world(5, |world| async move {
        let runtime = world.node("master").runtime();
        let first = open(&runtime).await.unwrap();
        let second = open(&runtime).await;
        assert_eq!(second.err(), Some(OpenError::InUse("/master".into())));
        drop(first);
        // Its background tasks let go of the lock when they are dropped.
        runtime.sleep(Duration::from_millis(1)).await;
        open(&runtime).await.unwrap();
    });
}

#[test]
fn time_never_runs_backwards() {
    block_on_world(6, |world| async move {
        let node = world.node("master");
        let runtime = node.runtime();
        let late = runtime.wall().plus(Duration::from_secs(100));
        let store = open(&runtime).await.unwrap();
        store.submit(&Append { at: late, row: 0, text: vec![1] }).unwrap();
        assert_eq!(store.next_time(runtime.wall()), late);
        store.flush().await.unwrap();
        drop(store);
        let store = open(&node.runtime()).await.unwrap();
        assert_eq!(store.next_time(runtime.wall()), late);
    });
}

/// A log of three commands in one segment, and where its records begin and end.
async fn three_commands(node: &Node) -> (Vec<Rows>, Vec<usize>) {
    let runtime = node.runtime();
    let store = open(&runtime).await.unwrap();
    let (mut history, mut ends) = (History::new(), vec![SEGMENT_HEADER_BYTES]);
    for row in 0..3 {
        let next = Append { at: Timestamp::from_nanos(5), row, text: vec![7; 20] };
        history.add(&next);
        ends.push(ends[usize::from(row)] + record_bytes(codec::encode(&next).len()));
        let (_, index) = store.submit(&next).unwrap();
        store.synced(index).await.unwrap();
    }
    node.crash(Crash::Kill);
    (history.states, ends)
}

fn overwrite(node: &Node, offset: usize, bytes: &[u8]) {
    let runtime = node.runtime();
    let path = segment_path(Path::new("/master/log"), LogIndex(1));
    let file = runtime.disk.open(&path, OpenMode::ReadWrite).unwrap();
    file.write_at(&[bytes], offset as u64).unwrap();
    file.sync_data().unwrap();
    node.crash(Crash::Kill);
}

#[test]
fn the_last_record_may_be_torn_anywhere() {
    block_on_world(7, |world| async move {
        let node = world.node("reference");
        let (states, ends) = three_commands(&node).await;
        for cut in ends[2]..ends[3] {
            let node = world.node(&format!("cut at {cut}"));
            three_commands(&node).await;
            let record = node.disk().read(&segment_path(Path::new("/master/log"), LogIndex(1))).unwrap();
            let lost = &record[cut..ends[3]];
            overwrite(&node, cut, &vec![0; ends[3] - cut]);
            let store = open(&node.runtime()).await.unwrap();
            let expected = if lost.iter().all(|byte| *byte == 0) { 3 } else { 2 };
            assert_eq!((store.last().0, rows(&store)), (expected, states[expected as usize].clone()), "cut at {cut}");
        }
    });
}

#[test]
fn a_damaged_record_before_a_later_one_that_vouches_for_it_is_refused() {
    block_on_world(8, |world| async move {
        let node = world.node("reference");
        let (_, ends) = three_commands(&node).await;
        for at in (ends[0]..ends[2]).filter(|at| at % 7 == 0) {
            let node = world.node(&format!("damage at {at}"));
            three_commands(&node).await;
            let old = node.disk().read(&segment_path(Path::new("/master/log"), LogIndex(1))).unwrap()[at];
            overwrite(&node, at, &[!old]);
            let refusal = open(&node.runtime()).await.err();
            let in_padding = [1, 2].iter().any(|record| at + 8 > ends[*record] && at < ends[*record] && refusal.is_none());
            let is_refused = matches!(refusal, Some(OpenError::Store(StoreError::Corrupt(_))));
            assert!(is_refused || in_padding, "damage at {at}: {refusal:?}");
        }
    });
}

#[test]
fn a_log_that_begins_too_late_is_refused() {
    block_on_world(9, |world| async move {
        let node = world.node("master");
        let runtime = node.runtime();
        let store = open(&runtime).await.unwrap();
        work(&runtime, &store, 300, &mut History::new()).await;
        store.flush().await.unwrap();
        node.crash(Crash::Kill);
        let runtime = node.runtime();
        runtime.disk.remove_file(Path::new("/master/tables.redb")).unwrap();
        assert!(matches!(open(&runtime).await.err(), Some(OpenError::Store(StoreError::Corrupt(_)))));
    });
}

#[test]
fn it_works_on_a_real_disk() {
    let directory = tempfile::tempdir().unwrap();
    let settings = StoreSettings { log_segment_bytes: 1 << 16, cache_bytes: 1 << 20, ..StoreSettings::new(directory.path().join("a/b")) };
    let end = run_role_here("test", |runtime| async move {
        let store = Store::<Toy>::open(runtime.clone(), settings.clone()).await.unwrap();
        let mut history = History::new();
        for number in 0..2000 {
            store.admit().await.unwrap();
            let next = command(&store, &runtime);
            history.add(&next);
            let (_, index) = store.submit(&next).unwrap();
            match number % 500 {
                10 => store.synced(index).await.unwrap(),
                300 => store.flush().await.unwrap(),
                _ => {}
            }
        }
        let second = Store::<Toy>::open(runtime.clone(), settings.clone()).await;
        assert!(matches!(second.err(), Some(OpenError::InUse(_))));
        drop(store);
        // Its background tasks are dropped in their own time.
        runtime.sleep(Duration::from_millis(20)).await;
        history.judge(&Store::open(runtime, settings).await.unwrap(), false);
    });
    end.unwrap();
}

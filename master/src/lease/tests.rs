use super::{LeaseTable, Obstacle, Use};
use cairn_common::ids::{Ino, SessionId};
use cairn_common::wire::lease::{LeaseMode, RecalledLease};
use proptest::prelude::{Strategy, any, proptest};
use std::collections::BTreeMap;

const A: SessionId = SessionId(1);
const B: SessionId = SessionId(2);
const C: SessionId = SessionId(3);
const F: Ino = Ino(7);

fn obstacles(table: &LeaseTable, session: SessionId, intent: Use) -> Vec<Obstacle> {
    let mut found = Vec::new();
    table.obstacles(session, F, intent, &mut found);
    found
}

fn held(session: SessionId, keep: Option<LeaseMode>) -> Obstacle {
    Obstacle::Held { session, lease: RecalledLease { ino: F, keep } }
}

#[test]
fn readers_share_and_a_writer_is_alone() {
    let mut table = LeaseTable::default();
    assert_eq!((table.grant(A, F), table.grant(B, F)), (Some(LeaseMode::Read), Some(LeaseMode::Read)));
    assert_eq!(obstacles(&table, C, Use::Look), []);
    assert_eq!(obstacles(&table, A, Use::Change), [held(B, None)]);
    assert_eq!(table.seize(A, F), Some(LeaseMode::Read), "not while the other one holds it");
    give_back(&mut table, B, RecalledLease { ino: F, keep: None });
    assert_eq!(table.seize(A, F), Some(LeaseMode::Write));
    assert_eq!((obstacles(&table, A, Use::Change), obstacles(&table, A, Use::Look)), (vec![], vec![]));
    assert_eq!(obstacles(&table, B, Use::Look), [held(A, Some(LeaseMode::Read))]);
    assert_eq!(obstacles(&table, B, Use::Change), [held(A, None)]);
    assert_eq!(table.grant(B, F), None);
    give_back(&mut table, A, RecalledLease { ino: F, keep: Some(LeaseMode::Read) });
    assert_eq!((table.mode(A, F), table.grant(B, F)), (Some(LeaseMode::Read), Some(LeaseMode::Read)));
}

#[test]
fn nobody_comes_in_while_somebody_waits_to_change() {
    let mut table = LeaseTable::default();
    table.grant(A, F);
    table.want(F);
    assert_eq!(table.grant(B, F), None);
    assert_eq!(table.grant(A, F), Some(LeaseMode::Read), "who has one keeps it");
    table.satisfied(F);
    assert_eq!(table.grant(B, F), Some(LeaseMode::Read));
}

#[test]
fn a_recall_is_sent_once_and_again_when_it_asks_for_more() {
    let mut table = LeaseTable::default();
    table.seize(A, F);
    let to_read = RecalledLease { ino: F, keep: Some(LeaseMode::Read) };
    let to_nothing = RecalledLease { ino: F, keep: None };
    let first = table.begin_recall(A, to_read).expect("it is not recalled yet");
    assert_eq!(table.begin_recall(A, to_read), None);
    let second = table.begin_recall(A, to_nothing).expect("that is more");
    assert_eq!(table.begin_recall(A, to_read), None);
    table.given_back(A, to_read, first);
    assert_eq!(table.begin_recall(A, to_nothing), None, "that one is still under way");
    assert_eq!((table.grant(A, F), table.seize(A, F)), (None, None), "the answer to the recall would take it back");
    table.given_back(A, to_nothing, second);
    assert_eq!(table.mode(A, F), None);
    table.grant(A, F);
    assert!(table.begin_recall(A, to_nothing).is_some(), "of the next lease");
}

#[test]
fn a_late_answer_to_an_older_recall_takes_nothing_of_the_next_lease() {
    let mut table = LeaseTable::default();
    table.seize(A, F);
    let to_read = RecalledLease { ino: F, keep: Some(LeaseMode::Read) };
    let to_nothing = RecalledLease { ino: F, keep: None };
    // The first is asked together with another inode, whose flush takes its time.
    let late = table.begin_recall(A, to_read).expect("it is not recalled yet");
    let answered = table.begin_recall(A, to_nothing).expect("that is more");
    table.given_back(A, to_nothing, answered);
    assert_eq!(table.seize(A, F), Some(LeaseMode::Write));
    table.given_back(A, to_read, late);
    assert_eq!(table.mode(A, F), Some(LeaseMode::Write));
    let next = table.begin_recall(A, to_read).expect("of the next lease");
    table.given_back(A, to_read, late);
    assert_eq!(table.mode(A, F), Some(LeaseMode::Write));
    table.given_back(A, to_read, next);
    assert_eq!(table.mode(A, F), Some(LeaseMode::Read));
}

/// Recalls a lease, and has it given back at once.
fn give_back(table: &mut LeaseTable, session: SessionId, lease: RecalledLease) {
    let number = table.begin_recall(session, lease).expect("nobody else recalls it");
    table.given_back(session, lease, number);
}

#[test]
fn after_a_restart_everybody_known_is_waited_for() {
    let mut table = LeaseTable::awaiting([A, B]);
    assert!(!table.is_alone(C));
    assert_eq!(obstacles(&table, C, Use::Look), [Obstacle::Awaited { session: A }, Obstacle::Awaited { session: B }]);
    assert!(table.begin_wait(A) && !table.begin_wait(A) && !table.begin_wait(C));
    assert!(table.came_back(A, &[F]));
    assert_eq!(obstacles(&table, A, Use::Change), [], "it has held it all the time");
    assert_eq!(obstacles(&table, C, Use::Look), [held(A, Some(LeaseMode::Read)), Obstacle::Awaited { session: B }]);
    assert!(!table.came_back(B, &[F]), "both can't have held it");
    table.ended(B);
    table.ended(A);
    assert_eq!(obstacles(&table, C, Use::Change), []);
    assert!(table.is_alone(C));
    assert!(!table.came_back(A, &[F]), "it was ended");
}

#[test]
fn the_oldest_are_taken_back_first() {
    let mut table = LeaseTable::default();
    for number in 0..10 {
        table.grant(A, Ino(number));
    }
    assert_eq!(table.excess(A, 10, 4), []);
    assert_eq!(table.excess(A, 7, 2), [Ino(0), Ino(1)]);
    for number in 0..2 {
        give_back(&mut table, A, RecalledLease { ino: Ino(number), keep: None });
    }
    assert_eq!((table.count(A), table.excess(A, 7, 2)), (8, vec![Ino(2)]));
}

#[derive(Debug, Clone)]
enum Step {
    Look(u64, u64),
    Write(u64, u64),
    Change(u64, u64),
    End(u64),
}

fn step() -> impl Strategy<Value = Step> {
    (any::<u8>(), 0..3u64, 0..4u64).prop_map(|(kind, session, ino)| match kind % 16 {
        0..6 => Step::Look(session, ino),
        6..10 => Step::Write(session, ino),
        10..15 => Step::Change(session, ino),
        _ => Step::End(session),
    })
}

/// Everybody gives back at once what stands in the way.
fn clear(table: &mut LeaseTable, session: SessionId, ino: Ino, intent: Use) {
    let mut found = Vec::new();
    table.obstacles(session, ino, intent, &mut found);
    for obstacle in found {
        match obstacle {
            Obstacle::Held { session, lease } => give_back(table, session, lease),
            Obstacle::Awaited { session } => table.ended(session),
        }
    }
    let mut left = Vec::new();
    table.obstacles(session, ino, intent, &mut left);
    assert_eq!(left, [], "nothing is left in the way");
}

proptest! {
    /// A cache for each session, which believes as its leases allow: it never differs from the truth.
    #[test]
    fn what_is_believed_is_true(steps in proptest::collection::vec(step(), 0..200)) {
        let mut table = LeaseTable::default();
        let mut truth: BTreeMap<Ino, u64> = BTreeMap::new();
        let mut believed: BTreeMap<(SessionId, Ino), u64> = BTreeMap::new();
        for (time, step) in steps.into_iter().enumerate() {
            match step {
                Step::Look(session, ino) => {
                    let (session, ino) = (SessionId(session), Ino(ino));
                    clear(&mut table, session, ino, Use::Look);
                    assert!(table.grant(session, ino).is_some());
                    believed.insert((session, ino), truth.get(&ino).copied().unwrap_or(0));
                }
                Step::Write(session, ino) | Step::Change(session, ino) if time % 2 == 0 => {
                    let (session, ino) = (SessionId(session), Ino(ino));
                    clear(&mut table, session, ino, Use::Change);
                    assert_eq!(table.seize(session, ino), Some(LeaseMode::Write));
                    truth.insert(ino, time as u64);
                    believed.insert((session, ino), time as u64);
                }
                Step::Write(session, ino) | Step::Change(session, ino) => {
                    let (session, ino) = (SessionId(session), Ino(ino));
                    clear(&mut table, session, ino, Use::Change);
                    truth.insert(ino, time as u64);
                    believed.remove(&(session, ino));
                    give_back(&mut table, session, RecalledLease { ino, keep: None });
                }
                Step::End(session) => table.ended(SessionId(session)),
            }
            believed.retain(|(session, ino), _| table.mode(*session, *ino).is_some());
            for ((session, ino), value) in &believed {
                assert_eq!(truth.get(ino).copied().unwrap_or(0), *value, "{session} of {ino}");
                let writers = (0..3).filter(|other| table.mode(SessionId(*other), *ino) == Some(LeaseMode::Write)).count();
                let holders = (0..3).filter(|other| table.mode(SessionId(*other), *ino).is_some()).count();
                assert!(writers == 0 || holders == 1, "{writers} writers among {holders} holders");
            }
            for session in (0..3).map(SessionId) {
                assert_eq!(table.count(session), (0..4).filter(|ino| table.mode(session, Ino(*ino)).is_some()).count());
            }
        }
    }
}

//! Retries, lost answers, acknowledgement, the end of a session.

use super::world::{ALICE, BOB, World, create};
use crate::state::command::Command;
use crate::state::outcome::Outcome;
use crate::state::read;
use crate::store::tables::{Reader, Table};
use cairn_common::attributes::FileKind;
use cairn_common::error::FsError;
use cairn_common::ids::{Ino, Sequence, SessionId};
use cairn_common::wire::master::{MasterError, Mutation};
use std::ops::ControlFlow;

fn mutate(session: SessionId, sequence: u64, acknowledged: u64, name: &str) -> Command {
    Command::Mutate {
        session,
        sequence: Sequence(sequence),
        acknowledged: Sequence(acknowledged),
        holders: Vec::new(),
        mutation: create(Ino::ROOT, name, FileKind::Regular),
    }
}

/// Rows of results, those of progress included.
fn result_rows(world: &World) -> usize {
    let mut rows = 0;
    let count = &mut |_: &[u8], _: &[u8]| {
        rows += 1;
        ControlFlow::Continue(())
    };
    world.tables.scan(Table::Results, &[], None, false, count).unwrap();
    rows
}

#[test]
fn a_retry_gets_the_first_answer() {
    let mut world = World::new();
    let first = world.apply(mutate(ALICE, 1, 0, "file"));
    assert!(matches!(first, Outcome::Mutated(_)));
    assert_eq!(world.apply(mutate(ALICE, 1, 0, "file")), first);
    // The same from another session is another mutation.
    assert_eq!(world.apply(mutate(BOB, 1, 0, "file")), Outcome::Refused(MasterError::Fs(FsError::Exists)));
    // A refusal is an answer as well: it stays although the name is free now.
    let unlink = Mutation::Unlink { parent: Ino::ROOT, name: b"file".to_vec() };
    world.apply(Command::Mutate {
        session: ALICE,
        sequence: Sequence(2),
        acknowledged: Sequence(0),
        holders: Vec::new(),
        mutation: unlink,
    });
    assert_eq!(world.apply(mutate(BOB, 1, 0, "file")), Outcome::Refused(MasterError::Fs(FsError::Exists)));
    assert_eq!(read::result(&world.tables, BOB, Sequence(1)).unwrap(), Some(Err(MasterError::Fs(FsError::Exists))));
    assert_eq!(read::result(&world.tables, BOB, Sequence(2)).unwrap(), None);
    world.assert_sound();
}

#[test]
fn mutations_may_arrive_in_any_order() {
    let mut world = World::new();
    for sequence in [5, 2, 9, 1] {
        assert!(matches!(world.apply(mutate(ALICE, sequence, 0, &sequence.to_string())), Outcome::Mutated(_)));
    }
    assert!(matches!(world.apply(mutate(ALICE, 3, 2, "late")), Outcome::Mutated(_)));
    assert_eq!(world.attributes(Ino::ROOT).size, 5);
}

#[test]
fn what_was_acknowledged_is_forgotten() {
    let mut world = World::new();
    for sequence in 1..=5 {
        world.apply(mutate(ALICE, sequence, 0, &sequence.to_string()));
    }
    world.apply(mutate(ALICE, 7, 4, "seven"));
    assert_eq!(result_rows(&world), 2 + 2);
    for forgotten in [1, 4] {
        let refused = Outcome::Refused(MasterError::Forgotten(Sequence(forgotten)));
        assert_eq!(world.apply(mutate(ALICE, forgotten, 0, "again")), refused);
    }
    // An older acknowledgement that comes late changes nothing; a great step clears all.
    world.apply(mutate(ALICE, 8, 2, "eight"));
    world.apply(mutate(ALICE, 1000, 999, "thousand"));
    assert_eq!(result_rows(&world), 2 + 1);
    world.assert_sound();
}

#[test]
fn senseless_sequences_are_refused() {
    let mut world = World::new();
    for (sequence, acknowledged) in [(0, 0), (3, 3), (3, 4), (u64::MAX, 0)] {
        let outcome = world.apply(mutate(ALICE, sequence, acknowledged, "file"));
        assert!(matches!(outcome, Outcome::Refused(MasterError::Malformed(_))), "{outcome:?}");
    }
    assert_eq!(world.attributes(Ino::ROOT).size, 0);
}

#[test]
fn an_ended_session_is_unknown_and_leaves_nothing() {
    let mut world = World::new();
    for sequence in 1..=30 {
        world.apply(mutate(ALICE, sequence, 0, &sequence.to_string()));
    }
    assert_eq!(world.step(Command::EndSession { session: ALICE }), Outcome::Again);
    assert_eq!(world.apply(Command::EndSession { session: ALICE }), Outcome::Done);
    assert_eq!(result_rows(&world), 1);
    let unknown = Outcome::Refused(MasterError::NoSuchSession(ALICE));
    assert_eq!(world.apply(mutate(ALICE, 31, 0, "late")), unknown);
    assert_eq!(world.apply(Command::EndSession { session: ALICE }), unknown);
    assert_eq!(world.apply(Command::Hold { session: ALICE, inodes: Vec::new() }), unknown);
    let back = world.apply(Command::OpenSession { previous: Some(ALICE), description: "é".repeat(500), open: Vec::new() });
    assert!(matches!(back, Outcome::Session { session: SessionId(3), resumed: false, .. }), "{back:?}");
    assert_eq!(read::sessions(&world.tables).unwrap().len(), 2);
    world.assert_sound();
}

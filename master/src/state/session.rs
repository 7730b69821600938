//! Sessions, and mutations done exactly once.
//!
//! A mutation is named by (session, sequence). Its result is kept until the client has acknowledged it, so that a retry
//! after a lost answer, a restart or a fail-over gets the first answer. Sequences may arrive in any order. Invariant: a result
//! is stored only for sequences above `Progress::acknowledged`.

use crate::keys;
use crate::state::edit::{Edit, STEPS_PER_COMMAND};
use crate::state::namespace;
use crate::state::orphan;
use crate::state::outcome::{Attempt, Failure, Outcome};
use crate::state::record::{Progress, SessionRecord, StoredResult, collect};
use crate::store::tables::{StoreError, Table};
use cairn_common::ids::{Ino, Sequence, SessionId};
use cairn_common::planted::{Bug, is_planted};
use cairn_common::wire::master::{MasterError, Mutation};
use std::collections::BTreeSet;

/// Longest description of a session, in characters; the rest is cut off.
const DESCRIPTION_CHARS_MAX: usize = 256;

pub fn open(edit: &mut Edit<'_, '_>, previous: Option<SessionId>, description: &str, open: &[Ino]) -> Attempt<Outcome> {
    let known = match previous {
        Some(previous) => edit.fetch::<SessionRecord>(Table::Sessions, &keys::session(previous))?.map(|record| (previous, record)),
        None => None,
    };
    let cluster = edit.cluster()?.uuid;
    let root = edit.linked_inode(Ino::ROOT)?.attributes(Ino::ROOT);
    let description: String = description.chars().take(DESCRIPTION_CHARS_MAX).collect();
    if let Some((session, record)) = known {
        edit.put(Table::Sessions, &keys::session(session), &SessionRecord { description, ..record });
        if !orphan::release_all(edit, session, &open.iter().copied().collect())? {
            return Err(Failure::Again);
        }
        return Ok(Outcome::Session { session, resumed: true, cluster, root });
    }
    let mut counters = edit.counters()?;
    let session = SessionId(counters.next_session);
    counters.next_session += 1;
    edit.put_counters(&counters);
    edit.put(Table::Sessions, &keys::session(session), &SessionRecord { description, opened: edit.at });
    edit.put(Table::Results, &keys::progress(session), &Progress { acknowledged: Sequence(0) });
    Ok(Outcome::Session { session, resumed: false, cluster, root })
}

pub fn end(edit: &mut Edit<'_, '_>, session: SessionId) -> Attempt<Outcome> {
    if edit.reader().get(Table::Sessions, &keys::session(session))?.is_none() {
        return Err(MasterError::NoSuchSession(session).into());
    }
    if !orphan::release_all(edit, session, &BTreeSet::new())? {
        return Err(Failure::Again);
    }
    let until = keys::result(session, Sequence(u64::MAX));
    let rows =
        collect(edit.reader(), Table::Results, &keys::result(session, Sequence(1)), Some(&until), STEPS_PER_COMMAND + 1, |key, _| {
            Ok(Some(keys::parse_result(key)?.1))
        })?;
    for sequence in rows.iter().take(STEPS_PER_COMMAND) {
        edit.delete(Table::Results, &keys::result(session, *sequence));
    }
    if rows.len() > STEPS_PER_COMMAND {
        return Err(Failure::Again);
    }
    edit.delete(Table::Results, &keys::progress(session));
    edit.delete(Table::Sessions, &keys::session(session));
    Ok(Outcome::Done)
}

pub fn mutate(
    edit: &mut Edit<'_, '_>,
    session: SessionId,
    sequence: Sequence,
    acknowledged: Sequence,
    holders: &[SessionId],
    mutation: &Mutation,
) -> Attempt<Outcome> {
    let progress: Option<Progress> = edit.fetch(Table::Results, &keys::progress(session))?;
    let progress = progress.ok_or(MasterError::NoSuchSession(session))?;
    check_sequence(sequence, acknowledged)?;
    if sequence <= progress.acknowledged {
        return Err(MasterError::Forgotten(sequence).into());
    }
    if let Some(StoredResult(first)) = edit.fetch(Table::Results, &keys::result(session, sequence))?
        && !is_planted(Bug::RetryForgotten)
    {
        return Ok(Outcome::Mutated(first?));
    }
    let result = match namespace::mutate(edit, session, holders, mutation) {
        Ok(reply) => Ok(reply),
        Err(Failure::Answer(error)) => Err(error),
        Err(other) => return Err(other),
    };
    forget_acknowledged(edit, session, progress, acknowledged)?;
    let stored = StoredResult(result);
    edit.put(Table::Results, &keys::result(session, sequence), &stored);
    Ok(Outcome::Mutated(stored.0?))
}

fn check_sequence(sequence: Sequence, acknowledged: Sequence) -> Result<(), MasterError> {
    // The largest number is kept free, so that there is always a key above all results.
    if sequence == Sequence(0) || sequence == Sequence(u64::MAX) || acknowledged >= sequence {
        let problem = format!("mutation {sequence} acknowledges {acknowledged}: sequences begin with 1 and acknowledge only earlier ones");
        return Err(MasterError::Malformed(problem));
    }
    Ok(())
}

/// Most results that are deleted without looking whether they are there.
const BLIND_DELETES_MAX: u64 = 64;

/// Deletes the results that the client has seen.
fn forget_acknowledged(edit: &mut Edit<'_, '_>, session: SessionId, progress: Progress, acknowledged: Sequence) -> Result<(), StoreError> {
    if acknowledged <= progress.acknowledged {
        return Ok(());
    }
    let first = Sequence(progress.acknowledged.0 + 1);
    let seen: Vec<Sequence> = if acknowledged.0 - progress.acknowledged.0 <= BLIND_DELETES_MAX {
        (first.0..=acknowledged.0).map(Sequence).collect()
    } else {
        let until = keys::result(session, Sequence(acknowledged.0 + 1));
        collect(edit.reader(), Table::Results, &keys::result(session, first), Some(&until), usize::MAX, |key, _| {
            Ok(Some(keys::parse_result(key)?.1))
        })?
    };
    for sequence in seen {
        edit.delete(Table::Results, &keys::result(session, sequence));
    }
    edit.put(Table::Results, &keys::progress(session), &Progress { acknowledged });
    Ok(())
}

//! Who takes part: the cluster itself, chunkservers, their targets, and which target holds which slot of which group.
//!
//! | a target is | becomes | when |
//! |---|---|---|
//! | unknown | joining | its server registers it |
//! | joining | serving | it is given a slot |
//! | joining, serving | suspect, dead | it stays silent |
//! | suspect, dead | serving | its server registers it again, or reports |
//! | any but removed | draining | an operator says so |
//! | draining | serving | the operator thinks better of it |
//! | draining, dead | removed | its slots are elsewhere; for good |
//!
//! Invariants: the map's epoch grows with each change that others can see; a group's `changed` is the epoch that brought its
//! present holders, so that a chunk put under an older map is recognised.

use crate::keys::{self, Record};
use crate::state::command::{NewCluster, PREFIX_BITS_MAX, PlacementScope, Registration, TargetChange};
use crate::state::compaction;
use crate::state::edit::Edit;
use crate::state::outcome::{Attempt, Outcome};
use crate::state::record::{
    ClusterRecord, Counters, Detail, ExtentUsage, GroupRecord, Inode, PoolRecord, PoolUsage, Rules, ServerRecord, TargetRecord, collect,
};
use crate::store::tables::{Reader, StoreError, Table};
use cairn_common::ids::{Incarnation, Ino, MapEpoch, PoolId, ServerId, TargetId};
use cairn_common::map::{Group, Slot, TargetState, has_labels};
use cairn_common::placement::{PlacementTarget, place as compute_placement};
use cairn_common::planted::{Bug, is_planted};
use cairn_common::wire::master::{MasterError, TargetAnnouncement};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// The pool that every cluster has.
pub const DEFAULT_POOL: PoolId = PoolId(1);

pub fn initialise(edit: &mut Edit<'_, '_>, new: &NewCluster) -> Attempt<Outcome> {
    if edit.reader().get(Table::Meta, &keys::cluster())?.is_some() {
        return Err(MasterError::Malformed("the cluster has been initialised already".to_owned()).into());
    }
    if new.prefix_bits > PREFIX_BITS_MAX {
        let problem = format!("a pool can have 2^{PREFIX_BITS_MAX} placement groups at most, not 2^{}", new.prefix_bits);
        return Err(MasterError::Malformed(problem).into());
    }
    let epoch = MapEpoch(1);
    edit.put_cluster(&ClusterRecord { uuid: new.cluster, epoch, next_server: 1, next_target: 1, joined: 0 });
    edit.put_counters(&Counters { next_ino: Ino::ROOT.0 + 1, next_session: 1, inodes: 1 });
    edit.put(Table::Meta, &keys::extent_usage(), &ExtentUsage::default());
    let mut root = Inode {
        mode: 0o755,
        uid: new.root_owner.uid,
        gid: new.root_owner.gid,
        nlink: 2,
        size: 0,
        allocated: 0,
        atime: edit.at,
        mtime: edit.at,
        ctime: edit.at,
        btime: edit.at,
        version: 0,
        xattr_list_bytes: 0,
        detail: Detail::Directory { parent: Ino::ROOT },
        pool: None,
    };
    edit.put_inode(Ino::ROOT, &mut root);
    let pool = PoolRecord {
        name: new.pool_name.clone(),
        scheme: new.scheme,
        prefix_bits: new.prefix_bits,
        placement_seed: new.placement_seed,
        labels: BTreeMap::new(),
    };
    edit.put(Table::Pools, &keys::pool(DEFAULT_POOL), &pool);
    let vacant = GroupRecord { slots: vec![Slot::default(); new.scheme.shards().into()], changed: epoch };
    for group in 0..1 << new.prefix_bits {
        edit.put(Table::Pools, &keys::group(DEFAULT_POOL, group), &vacant);
    }
    Ok(Outcome::Done)
}

/// More inodes and sessions than the master makes between two syncs of its log.
const NUMBERS_SKIPPED: u64 = 1 << 20;

/// `Command::SetRules`
pub fn set_rules(edit: &mut Edit<'_, '_>, rules: &Rules) -> Attempt<Outcome> {
    if edit.reader().get(Table::Meta, &keys::cluster())?.is_some() {
        return Err(MasterError::Malformed("the cluster has been initialised already: its rules stay as they are".to_owned()).into());
    }
    edit.put(Table::Meta, &keys::rules(), rules);
    Ok(Outcome::Done)
}

/// `Command::SkipNumbers`
pub fn skip_numbers(edit: &mut Edit<'_, '_>) -> Attempt<Outcome> {
    compaction::take_stock(edit)?;
    let mut counters = edit.counters()?;
    if is_planted(Bug::NumbersNotSkipped) {
        return Ok(Outcome::Done);
    }
    counters.next_ino += NUMBERS_SKIPPED;
    counters.next_session += NUMBERS_SKIPPED;
    edit.put_counters(&counters);
    Ok(Outcome::Done)
}

// ---- reading

pub fn servers(reader: &dyn Reader) -> Result<BTreeMap<ServerId, ServerRecord>, StoreError> {
    let rows = collect(reader, Table::Servers, &[], None, usize::MAX, |key, value| {
        Ok(Some((keys::parse_server(key)?, ServerRecord::decode(value)?)))
    })?;
    Ok(rows.into_iter().collect())
}

pub fn targets(reader: &dyn Reader) -> Result<BTreeMap<TargetId, TargetRecord>, StoreError> {
    let rows = collect(reader, Table::Targets, &[], None, usize::MAX, |key, value| {
        Ok(Some((keys::parse_target(key)?, TargetRecord::decode(value)?)))
    })?;
    Ok(rows.into_iter().collect())
}

pub fn pools(reader: &dyn Reader) -> Result<Vec<(PoolId, PoolRecord)>, StoreError> {
    let prefix = keys::pools_start();
    collect(reader, Table::Pools, &prefix, keys::after_prefix(&prefix).as_deref(), usize::MAX, |key, value| {
        Ok(Some((keys::parse_pool(key)?, PoolRecord::decode(value)?)))
    })
}

pub fn groups(reader: &dyn Reader, pool: PoolId) -> Result<Vec<GroupRecord>, StoreError> {
    let prefix = keys::groups(pool);
    collect(reader, Table::Pools, &prefix, keys::after_prefix(&prefix).as_deref(), usize::MAX, |_, value| {
        Ok(Some(GroupRecord::decode(value)?))
    })
}

// ---- registration

pub fn register(
    edit: &mut Edit<'_, '_>,
    name: &str,
    address: SocketAddr,
    incarnation: Incarnation,
    labels: &BTreeMap<String, String>,
    announced: &[TargetAnnouncement],
) -> Attempt<Outcome> {
    let known = targets(edit.reader())?;
    let by_uuid: BTreeMap<[u8; 16], TargetId> = known.iter().map(|(id, target)| (target.uuid, *id)).collect();
    check_announcements(announced, &by_uuid)?;
    let mut cluster = edit.cluster()?;
    let previous = servers(edit.reader())?.into_iter().find(|(_, record)| record.name == name);
    let server = previous.as_ref().map_or(ServerId(cluster.next_server), |(id, _)| *id);
    let record = ServerRecord { name: name.to_owned(), address, incarnation, labels: labels.clone() };
    let was_visible = previous.map(|(_, record)| (record.address, record.labels));
    let mut has_changed = was_visible.is_none_or(|visible| visible != (address, labels.clone()));
    cluster.next_server = cluster.next_server.max(server.0 + 1);
    edit.put(Table::Servers, &keys::server(server), &record);

    let mut ids = Vec::with_capacity(announced.len());
    for announcement in announced {
        let id = by_uuid.get(&announcement.uuid).copied();
        let before = id.and_then(|id| known.get(&id));
        let target = welcome(before, server, announcement);
        let id = id.unwrap_or(TargetId(cluster.next_target));
        cluster.next_target = cluster.next_target.max(id.0 + 1);
        has_changed |= before != Some(&target);
        edit.put(Table::Targets, &keys::target(id), &target);
        ids.push(id);
    }
    if has_changed {
        cluster.epoch.0 += 1;
    }
    edit.put_cluster(&cluster);
    Ok(Outcome::Registered(Registration { server, targets: ids }))
}

/// A target as it is after it was announced.
fn welcome(before: Option<&TargetRecord>, server: ServerId, announcement: &TargetAnnouncement) -> TargetRecord {
    let state = match before.map(|before| before.state) {
        None => TargetState::Joining,
        Some(TargetState::Suspect | TargetState::Dead) => TargetState::Serving,
        Some(state) => state,
    };
    TargetRecord {
        uuid: announcement.uuid,
        server,
        state,
        full: before.is_some_and(|before| before.full),
        capacity_bytes: announcement.capacity_bytes,
    }
}

fn check_announcements(announced: &[TargetAnnouncement], by_uuid: &BTreeMap<[u8; 16], TargetId>) -> Result<(), MasterError> {
    let mut seen = BTreeSet::new();
    for announcement in announced {
        if !seen.insert(announcement.uuid) {
            return Err(MasterError::Malformed("a data directory was announced twice".to_owned()));
        }
        let known = by_uuid.get(&announcement.uuid);
        if let Some(claimed) = announcement.id.filter(|claimed| known != Some(claimed)) {
            let problem = format!(
                "a data directory says that it is {claimed}, but this cluster does not know it as that: does it belong to another?"
            );
            return Err(MasterError::Malformed(problem));
        }
    }
    Ok(())
}

// ---- targets

/// Whether the table of the module's head allows it.
fn may_become(from: TargetState, to: TargetState) -> bool {
    match (from, to) {
        (TargetState::Removed, _) | (_, TargetState::Joining) => false,
        (_, TargetState::Draining) => true,
        (TargetState::Draining, TargetState::Serving | TargetState::Removed) => true,
        (TargetState::Draining, _) => false,
        (TargetState::Dead, TargetState::Serving | TargetState::Removed) => true,
        (TargetState::Dead, _) => false,
        (TargetState::Joining | TargetState::Serving | TargetState::Suspect, to) => to != TargetState::Removed,
    }
}

/// Does all of the changes or, if one makes no sense, none.
pub fn change_targets(edit: &mut Edit<'_, '_>, changes: &[TargetChange]) -> Attempt<Outcome> {
    let mut targets = targets(edit.reader())?;
    let mut changed = BTreeSet::new();
    for change in changes {
        let id = change.target;
        let target = targets.get_mut(&id).ok_or_else(|| MasterError::Malformed(format!("there is no target {id}")))?;
        let before = target.clone();
        if let Some(state) = change.state.filter(|state| *state != target.state) {
            if !may_become(target.state, state) {
                return Err(MasterError::Malformed(format!("target {id} is {:?}: it can't become {state:?}", target.state)).into());
            }
            target.state = state;
        }
        target.full = change.full.unwrap_or(target.full);
        target.capacity_bytes = change.capacity_bytes.unwrap_or(target.capacity_bytes);
        if *target != before {
            changed.insert(id);
        }
    }
    for id in &changed {
        edit.put(Table::Targets, &keys::target(*id), &targets[id]);
    }
    let epoch = if changed.is_empty() { edit.cluster()?.epoch } else { next_epoch(edit)? };
    Ok(Outcome::Placed { epoch })
}

fn next_epoch(edit: &mut Edit<'_, '_>) -> Result<MapEpoch, StoreError> {
    let mut cluster = edit.cluster()?;
    cluster.epoch.0 += 1;
    edit.put_cluster(&cluster);
    Ok(cluster.epoch)
}

// ---- placement

/// Whether a target may hold slots.
pub fn keeps_slots(state: TargetState) -> bool {
    matches!(state, TargetState::Joining | TargetState::Serving | TargetState::Suspect)
}

/// Whether a target may still hand out the shards that it has.
fn may_answer(state: TargetState) -> bool {
    !matches!(state, TargetState::Dead | TargetState::Removed)
}

pub fn place(edit: &mut Edit<'_, '_>, scope: PlacementScope) -> Attempt<Outcome> {
    let mut targets = targets(edit.reader())?;
    let servers = servers(edit.reader())?;
    let epoch = edit.cluster()?.epoch;
    let next = MapEpoch(epoch.0 + 1);
    let mut has_changed = false;
    for (id, pool) in pools(edit.reader())? {
        let usage: Option<PoolUsage> = edit.fetch(Table::Meta, &keys::pool_usage(id))?;
        let is_empty = usage.is_none_or(|usage| usage.chunks == 0);
        let scope = if is_empty { PlacementScope::All } else { scope };
        let groups = groups(edit.reader(), id)?;
        let candidates = candidates(&servers, &targets, &pool.labels);
        let planned = plan(&pool, &groups, &candidates, scope, &targets);
        for (number, (before, slots)) in groups.iter().zip(planned).enumerate() {
            // What never held anything is no source.
            let forget = |slot: Slot| if is_empty { Slot { previous: None, ..slot } } else { slot };
            let slots: Vec<Slot> = slots.into_iter().map(forget).collect();
            if before.slots != slots {
                has_changed = true;
                edit.put(Table::Pools, &keys::group(id, number as u32), &GroupRecord { slots, changed: next });
            }
        }
    }
    has_changed |= admit(edit, &mut targets)?;
    Ok(Outcome::Placed { epoch: if has_changed { next_epoch(edit)? } else { epoch } })
}

/// Gives the slots of a pool that has no groups yet to `candidates`.
pub fn place_anew(
    edit: &mut Edit<'_, '_>,
    id: PoolId,
    pool: &PoolRecord,
    candidates: &[PlacementTarget],
    targets: &BTreeMap<TargetId, TargetRecord>,
    epoch: MapEpoch,
) {
    let vacant = GroupRecord { slots: vec![Slot::default(); pool.scheme.shards().into()], changed: epoch };
    let groups = vec![vacant; 1 << pool.prefix_bits];
    let planned = plan(pool, &groups, candidates, PlacementScope::All, targets);
    for (number, slots) in planned.into_iter().enumerate() {
        edit.put(Table::Pools, &keys::group(id, number as u32), &GroupRecord { slots, changed: epoch });
    }
}

/// Where a target stands: its rack and its host. A server without a `host` label is a host, and a host without a `rack` label a
/// rack of its own.
pub fn domains(server: ServerId, labels: &BTreeMap<String, String>) -> [String; 2] {
    let host = labels.get("host").cloned().unwrap_or_else(|| server.to_string());
    let rack = labels.get("rack").cloned().unwrap_or_else(|| format!("host {host}"));
    [rack, host]
}

/// The targets that may hold slots of a pool that wants `labels`, with their failure domains.
pub fn candidates(
    servers: &BTreeMap<ServerId, ServerRecord>,
    targets: &BTreeMap<TargetId, TargetRecord>,
    wanted: &BTreeMap<String, String>,
) -> Vec<PlacementTarget> {
    let unlabelled = BTreeMap::new();
    let labels_of = |target: &TargetRecord| servers.get(&target.server).map_or(&unlabelled, |record| &record.labels);
    targets
        .iter()
        .filter(|(_, target)| keeps_slots(target.state) && has_labels(labels_of(target), wanted))
        .map(|(id, target)| {
            let labels = labels_of(target);
            let domains = domains(target.server, labels).to_vec();
            PlacementTarget { id: *id, weight: target.capacity_bytes.max(1), domains }
        })
        .collect()
}

/// The slots of each group as they shall be.
fn plan(
    pool: &PoolRecord,
    groups: &[GroupRecord],
    candidates: &[PlacementTarget],
    scope: PlacementScope,
    targets: &BTreeMap<TargetId, TargetRecord>,
) -> Vec<Vec<Slot>> {
    let able: BTreeSet<TargetId> = candidates.iter().map(|candidate| candidate.id).collect();
    let stays = |holder: &TargetId| able.contains(holder);
    // Where nobody can take a slot over, it stays with whoever has its shards, even if that one is away.
    let may_return = |holder: &TargetId| targets.get(holder).is_some_and(|target| target.state != TargetState::Removed);
    let may_answer = |holder: &TargetId| targets.get(holder).is_some_and(|target| may_answer(target.state));
    let kept: Vec<Group> = groups
        .iter()
        .map(|group| Group {
            slots: group.slots.iter().map(|slot| Slot { holder: slot.holder.filter(stays), previous: slot.previous }).collect(),
        })
        .collect();
    let ideal = compute_placement(candidates, pool.scheme.shards(), pool.prefix_bits, &kept, pool.placement_seed);
    let chosen = kept.iter().zip(&ideal).map(|(kept, ideal)| match scope {
        PlacementScope::All => holders(ideal).collect(),
        PlacementScope::Vacant => fill_vacant(kept, ideal),
    });
    groups
        .iter()
        .zip(chosen)
        .map(|(group, holders): (_, Vec<_>)| {
            let heirs = holders.into_iter().zip(&group.slots).map(|(heir, slot)| heir.or(slot.holder.filter(may_return)));
            group.slots.iter().zip(heirs).map(|(slot, holder)| slot.handed_to(holder, may_answer)).collect()
        })
        .collect()
}

fn holders(group: &Group) -> impl Iterator<Item = Option<TargetId>> {
    group.slots.iter().map(|slot| slot.holder)
}

/// Leaves every holder where it is, and gives the vacant slots to those that the ideal placement has in the group.
fn fill_vacant(kept: &Group, ideal: &Group) -> Vec<Option<TargetId>> {
    let mut used: BTreeSet<TargetId> = holders(kept).flatten().collect();
    let mut take = |candidate: Option<TargetId>| candidate.filter(|target| used.insert(*target));
    let mut slots: Vec<_> = kept.slots.iter().zip(&ideal.slots).map(|(kept, ideal)| kept.holder.or_else(|| take(ideal.holder))).collect();
    for slot in slots.iter_mut().filter(|slot| slot.is_none()) {
        *slot = holders(ideal).find_map(&mut take);
    }
    slots
}

/// Targets that have been given a slot serve. Whether there were any.
fn admit(edit: &mut Edit<'_, '_>, targets: &mut BTreeMap<TargetId, TargetRecord>) -> Result<bool, StoreError> {
    let mut holding = BTreeSet::new();
    for (pool, _) in pools(edit.reader())? {
        holding.extend(groups(edit.reader(), pool)?.iter().flat_map(|group| group.slots.iter().filter_map(|slot| slot.holder)));
    }
    let mut has_changed = false;
    for (id, target) in targets.iter_mut().filter(|(id, target)| target.state == TargetState::Joining && holding.contains(id)) {
        target.state = TargetState::Serving;
        edit.put(Table::Targets, &keys::target(*id), target);
        has_changed = true;
    }
    Ok(has_changed)
}

/// `Command::SettleSlots`
pub fn settle(edit: &mut Edit<'_, '_>, slots: &[(PoolId, u32, u8)]) -> Attempt<Outcome> {
    let mut has_changed = false;
    for (pool, number, slot) in slots {
        let record: Option<GroupRecord> = edit.fetch(Table::Pools, &keys::group(*pool, *number))?;
        let Some(mut record) = record else { continue };
        let Some(slot) = record.slots.get_mut(usize::from(*slot)).filter(|slot| slot.holder.is_some() && slot.previous.is_some()) else {
            continue;
        };
        slot.previous = None;
        edit.put(Table::Pools, &keys::group(*pool, *number), &record);
        has_changed = true;
    }
    let epoch = if has_changed { next_epoch(edit)? } else { edit.cluster()?.epoch };
    Ok(Outcome::Placed { epoch })
}

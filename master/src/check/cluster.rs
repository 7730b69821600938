//! Pools, groups, targets: few rows, looked at in one go.

use super::problem::Problem;
use crate::state::read;
use crate::state::record::{GroupRecord, PoolRecord, TargetRecord};
use crate::store::tables::{Reader, StoreError};
use cairn_common::ids::{PoolId, TargetId};
use std::collections::{BTreeMap, BTreeSet};

/// Checks them; the pools that there are.
pub fn check(reader: &dyn Reader, problems: &mut Vec<Problem>) -> Result<BTreeMap<PoolId, PoolRecord>, StoreError> {
    match check_readable(reader, problems) {
        Err(StoreError::Corrupt(reason)) => {
            // Without pools no chunk can be judged: nothing else is concluded from this row.
            problems.push(Problem::Row { table: "pools, targets or servers", key: Vec::new(), reason });
            Ok(BTreeMap::new())
        }
        other => other,
    }
}

fn check_readable(reader: &dyn Reader, problems: &mut Vec<Problem>) -> Result<BTreeMap<PoolId, PoolRecord>, StoreError> {
    let targets = read::targets(reader)?;
    let servers = read::servers(reader)?;
    for (id, target) in &targets {
        if !servers.contains_key(&target.server) {
            problems.push(Problem::Cluster { reason: format!("target {id} belongs to server {}, which is not known", target.server) });
        }
    }
    if read::cluster(reader)?.is_none() {
        problems.push(Problem::Cluster { reason: "the record of the cluster is missing".to_owned() });
    }
    let pools: BTreeMap<PoolId, PoolRecord> = read::pools(reader)?.into_iter().collect();
    for (pool, record) in &pools {
        let groups = read::groups(reader, *pool)?;
        if groups.len() != 1 << record.prefix_bits {
            problems.push(Problem::Cluster { reason: format!("pool {pool} has {} groups, not {}", groups.len(), 1 << record.prefix_bits) });
        }
        for (number, group) in (0u32..).zip(&groups) {
            if let Some(reason) = group_problem(record, group, &targets) {
                problems.push(Problem::Group { pool: *pool, group: number, reason });
            }
        }
    }
    Ok(pools)
}

fn group_problem(pool: &PoolRecord, group: &GroupRecord, targets: &BTreeMap<TargetId, TargetRecord>) -> Option<String> {
    if group.slots.len() != usize::from(pool.scheme.shards()) {
        return Some(format!("it has {} slots, the pool's scheme is {}", group.slots.len(), pool.scheme));
    }
    let holders: Vec<TargetId> = group.slots.iter().filter_map(|slot| slot.holder).collect();
    if holders.iter().collect::<BTreeSet<_>>().len() != holders.len() {
        return Some(format!("a target holds two of its slots: {holders:?}"));
    }
    let named = group.slots.iter().flat_map(|slot| [slot.holder, slot.previous]).flatten();
    let unknown = named.into_iter().find(|target| !targets.contains_key(target))?;
    Some(format!("a slot names {unknown}, which is not known"))
}

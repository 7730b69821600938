//! New pools. A pool is a scheme, and what a chunkserver must be labelled with to hold its slots; pools are never changed nor removed.

use crate::keys;
use crate::state::cluster::{candidates, place_anew, pools, servers, targets};
use crate::state::command::{NewPool, PREFIX_BITS_MAX};
use crate::state::edit::Edit;
use crate::state::outcome::{Attempt, Outcome};
use crate::state::record::PoolRecord;
use crate::store::tables::Table;
use cairn_common::ids::{MapEpoch, PoolId};
use cairn_common::limits::{POOL_LABELS_MAX, POOL_NAME_BYTES_MAX, POOLS_MAX, SLOTS_MAX};
use cairn_common::map::labels_text;
use cairn_common::scheme::Scheme;
use cairn_common::wire::master::MasterError;

/// `Command::CreatePool`: its slots have holders at once.
pub fn create(edit: &mut Edit<'_, '_>, new: &NewPool) -> Attempt<Outcome> {
    check(new)?;
    let known = pools(edit.reader())?;
    if known.iter().any(|(_, pool)| pool.name == new.name) {
        return Err(refused(format!("there is a pool {} already: `cairn pool show {}` shows it", new.name, new.name)).into());
    }
    if known.len() >= POOLS_MAX {
        return Err(refused(format!("a cluster can have {POOLS_MAX} pools at most")).into());
    }
    let slots_of = |scheme: Scheme, prefix_bits: u8| usize::from(scheme.shards()) << prefix_bits;
    let slots_before: usize = known.iter().map(|(_, pool)| slots_of(pool.scheme, pool.prefix_bits)).sum();
    if slots_before + slots_of(new.scheme, new.prefix_bits) > SLOTS_MAX {
        return Err(refused(format!("the placement groups of all pools can have {SLOTS_MAX} slots at most: use a narrower scheme")).into());
    }
    let mut cluster = edit.cluster()?;
    let targets = targets(edit.reader())?;
    let candidates = candidates(&servers(edit.reader())?, &targets, &new.labels);
    let slots = usize::from(new.scheme.shards());
    if candidates.len() < slots {
        return Err(refused(lacks_disks(new, candidates.len())).into());
    }
    let id = PoolId(known.iter().map(|(id, _)| id.0).max().unwrap_or(0) + 1);
    let record = PoolRecord {
        name: new.name.clone(),
        scheme: new.scheme,
        prefix_bits: new.prefix_bits,
        placement_seed: new.placement_seed,
        labels: new.labels.clone(),
    };
    cluster.epoch = MapEpoch(cluster.epoch.0 + 1);
    edit.put(Table::Pools, &keys::pool(id), &record);
    place_anew(edit, id, &record, &candidates, &targets, cluster.epoch);
    edit.put_cluster(&cluster);
    Ok(Outcome::PoolCreated { pool: id })
}

fn refused(problem: String) -> MasterError {
    MasterError::Malformed(problem)
}

fn lacks_disks(new: &NewPool, found: usize) -> String {
    let (name, scheme, slots) = (&new.name, new.scheme, new.scheme.shards());
    let place =
        if new.labels.is_empty() { "in this cluster".to_owned() } else { format!("on chunkservers labelled {}", labels_text(&new.labels)) };
    format!(
        "pool {name}: {scheme} needs {slots} disks, and there are {found} {place}: `cairn chunkserver list` shows them with their labels"
    )
}

fn check(new: &NewPool) -> Result<(), MasterError> {
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let name = &new.name;
    if name.is_empty() || name.len() > POOL_NAME_BYTES_MAX || name.starts_with('-') || !is_plain(name) {
        let problem =
            format!("{name:?} can't be the name of a pool: use up to {POOL_NAME_BYTES_MAX} letters, digits, dots, dashes and underscores");
        return Err(refused(problem));
    }
    let is_long = |text: &String| text.is_empty() || text.len() > POOL_NAME_BYTES_MAX;
    if new.labels.len() > POOL_LABELS_MAX || new.labels.iter().any(|(key, value)| is_long(key) || is_long(value)) {
        return Err(refused(format!(
            "a pool can want {POOL_LABELS_MAX} labels, each with a key and a value of 1 to {POOL_NAME_BYTES_MAX} bytes"
        )));
    }
    if new.prefix_bits > PREFIX_BITS_MAX {
        return Err(refused(format!("a pool can have 2^{PREFIX_BITS_MAX} placement groups at most, not 2^{}", new.prefix_bits)));
    }
    Ok(())
}

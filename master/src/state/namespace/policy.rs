//! Which pool the content of files goes to. A directory may have a policy, which names a pool. A new file follows the nearest directory
//! above it that has one, and keeps to that pool: neither another policy nor a rename moves content that is stored. Without any policy
//! content goes to the default pool.

use crate::keys;
use crate::state::cluster::DEFAULT_POOL;
use crate::state::edit::Edit;
use crate::state::namespace::commit::malformed;
use crate::state::outcome::Attempt;
use crate::state::record::{Detail, Inode, fetch};
use crate::store::tables::{Reader, StoreError, Table};
use cairn_common::attributes::FileKind;
use cairn_common::ids::{Ino, PoolId};
use cairn_common::wire::master::MutationReply;

/// Pools are numbered from 1 on and stay, so while there is no second one, policies have nothing to say.
const SECOND_POOL: PoolId = PoolId(2);

/// `Mutation::SetPolicy`. ctime changes, as with any other attribute.
pub fn set(edit: &mut Edit<'_, '_>, ino: Ino, pool: Option<PoolId>) -> Attempt<MutationReply> {
    let mut directory = edit.directory(ino)?;
    if let Some(pool) = pool
        && edit.reader().get(Table::Pools, &keys::pool(pool))?.is_none()
    {
        return Err(malformed(format!("there is no pool {pool}")).into());
    }
    directory.pool = pool;
    directory.ctime = edit.at;
    edit.put_inode(ino, &mut directory);
    Ok(MutationReply::Inode(directory.attributes(ino)))
}

/// Directories that are asked for their policy on the way up. What is made deeper has none, nor has what is made below a directory whose
/// parents are damaged: a creation must not stop the master for that.
const ABOVE_MAX: usize = 4096;

/// The pool of what is made in a directory.
pub fn of_new(reader: &dyn Reader, parent: Ino, directory: &Inode, kind: FileKind) -> Result<Option<PoolId>, StoreError> {
    if kind != FileKind::Regular || reader.get(Table::Pools, &keys::pool(SECOND_POOL))?.is_none() {
        return Ok(None);
    }
    let (mut at, mut pool, mut above) = (parent, directory.pool, parent_in(directory));
    for _ in 0..ABOVE_MAX {
        let Some(next) = above.filter(|_| pool.is_none() && at != Ino::ROOT) else { break };
        let Some(inode) = fetch::<Inode>(reader, Table::Inodes, &keys::inode(next))? else { break };
        (at, pool, above) = (next, inode.pool, parent_in(&inode));
    }
    Ok(pool)
}

fn parent_in(inode: &Inode) -> Option<Ino> {
    match inode.detail {
        Detail::Directory { parent } => Some(parent),
        _ => None,
    }
}

/// Whether two files keep their content in the same pool, so that one may share chunks with the other.
pub fn is_shared(one: &Inode, other: &Inode) -> bool {
    one.pool.unwrap_or(DEFAULT_POOL) == other.pool.unwrap_or(DEFAULT_POOL)
}

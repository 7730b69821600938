//! Who works on the shards of a group of a target: either the repair, which fills it, or the audit, which deletes from it.
//!
//! The repair reports a slot as complete because it found its shards there. They must not be deleted after it looked, on the
//! strength of a map by which they still belonged elsewhere.

use cairn_common::ids::PoolId;
use parking_lot::Mutex;
use std::collections::BTreeSet;

type Group = (PoolId, u32);

/// The groups of one target that somebody works on.
#[derive(Default)]
pub struct Claims {
    claimed: Mutex<BTreeSet<Group>>,
}

/// Lets go of its group when it is dropped.
pub struct Claim<'a> {
    claims: &'a Claims,
    group: Group,
}

impl Claims {
    /// `None` if somebody else works on the group.
    pub fn claim(&self, group: Group) -> Option<Claim<'_>> {
        let is_free = self.claimed.lock().insert(group);
        // Not `then_some`: a claim that is made and dropped lets go of the group.
        is_free.then(|| Claim { claims: self, group })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.claimed.lock().remove(&self.group);
    }
}

#[cfg(test)]
mod tests {
    use super::Claims;
    use cairn_common::ids::PoolId;

    #[test]
    fn a_group_is_claimed_once_at_a_time() {
        let claims = Claims::default();
        let first = claims.claim((PoolId(1), 7));
        assert!(first.is_some() && claims.claim((PoolId(1), 7)).is_none());
        assert!(claims.claim((PoolId(1), 7)).is_none(), "whoever was refused has let go of nothing");
        assert!(claims.claim((PoolId(1), 8)).is_some() && claims.claim((PoolId(2), 7)).is_some());
        drop(first);
        assert!(claims.claim((PoolId(1), 7)).is_some());
    }
}

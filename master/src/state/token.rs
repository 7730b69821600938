//! Join tokens: a secret (kept as its hash) that lets one node of one role join, once, for a while.

use crate::keys;
use crate::keys::Record;
use crate::state::edit::Edit;
use crate::state::outcome::{Attempt, Outcome};
use crate::state::record::{TokenRecord, TokenUse, collect};
use crate::store::tables::{StoreError, Table};
use cairn_common::time::Timestamp;
use cairn_common::wire::master::{MasterError, Role, TokenRefusal};
use std::time::Duration;

/// How long an expired token is kept, so that its user is told so rather than that it is unknown.
const EXPIRED_KEPT: Duration = Duration::from_secs(24 * 3600);

pub fn create(edit: &mut Edit<'_, '_>, secret: &[u8; 32], role: Role, expires: Timestamp) -> Attempt<Outcome> {
    sweep(edit)?;
    if edit.reader().get(Table::Tokens, &keys::token(secret))?.is_some() {
        return Err(MasterError::Malformed("a join token with this secret exists already".to_owned()).into());
    }
    edit.put(Table::Tokens, &keys::token(secret), &TokenRecord { role, expires, used: None });
    Ok(Outcome::Done)
}

/// Drops tokens that expired long ago. There are few tokens.
fn sweep(edit: &mut Edit<'_, '_>) -> Result<(), StoreError> {
    let now = edit.at;
    let rows = collect(edit.reader(), Table::Tokens, &[], None, usize::MAX, |key, value| {
        let token = TokenRecord::decode(value)?;
        Ok(Some((token.expires.plus(EXPIRED_KEPT) < now).then(|| key.to_vec())))
    })?;
    for key in rows.into_iter().flatten() {
        edit.delete(Table::Tokens, &key);
    }
    Ok(())
}

pub fn redeem(edit: &mut Edit<'_, '_>, secret: &[u8; 32], role: Role, public_key: [u8; 32]) -> Attempt<Outcome> {
    let refuse = |refusal| MasterError::TokenRefused(refusal);
    let token: Option<TokenRecord> = edit.fetch(Table::Tokens, &keys::token(secret))?;
    let token = token.ok_or(refuse(TokenRefusal::Unknown))?;
    if token.role != role {
        return Err(refuse(TokenRefusal::WrongRole).into());
    }
    match token.used {
        Some(used) if used.public_key == public_key => return Ok(Outcome::Joined { number: used.number }),
        Some(_) => return Err(refuse(TokenRefusal::Used).into()),
        None => {}
    }
    if token.expires < edit.at {
        return Err(refuse(TokenRefusal::Expired).into());
    }
    let mut cluster = edit.cluster()?;
    cluster.joined += 1;
    let number = cluster.joined;
    edit.put_cluster(&cluster);
    edit.put(Table::Tokens, &keys::token(secret), &TokenRecord { used: Some(TokenUse { public_key, number }), ..token });
    Ok(Outcome::Joined { number })
}

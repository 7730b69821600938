//! Tokens, and the certificates that they are traded for.

use super::master::Master;
use super::namespace::unexpected;
use crate::state::{Command, Outcome};
use cairn_common::wire::master::{MasterError, MasterReply, Role};
use cairn_runtime::pki::{Authority, PkiError, Token, token::secret_hash};
use std::time::Duration;

/// Longest life of a token: it opens the cluster to whoever finds it.
const TOKEN_LIFETIME_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

impl Master {
    fn authority(&self) -> Result<&Authority, MasterError> {
        self.authority
            .as_ref()
            .ok_or_else(|| MasterError::Unavailable("this master was started without the cluster's authority".to_owned()))
    }

    pub(super) async fn create_token(&self, role: Role, lifetime_seconds: u64) -> Result<MasterReply, MasterError> {
        if role == Role::Master {
            return Err(MasterError::Malformed("a cluster has one master so far: nobody can join as another".to_owned()));
        }
        let token = Token { fingerprint: self.authority()?.fingerprint(), secret: self.runtime.random_bytes(), role };
        let expires = self.time().plus(Duration::from_secs(lifetime_seconds).min(TOKEN_LIFETIME_MAX));
        let index = self.submit(Command::CreateToken { secret: token.secret_hash(), role, expires }).await?;
        self.synced(index).await?;
        Ok(MasterReply::Token { token: token.to_string() })
    }

    pub(super) async fn join(&self, secret: &[u8], role: Role, public_key: Vec<u8>) -> Result<MasterReply, MasterError> {
        let authority = self.authority()?;
        let fingerprint = *blake3::hash(&public_key).as_bytes();
        let command = Command::UseToken { secret: secret_hash(secret), role, public_key: fingerprint };
        let (outcome, index) = self.perform(|_| Ok(command.clone()), |_, outcome| outcome).await?;
        let Outcome::Joined { number } = outcome else { return Err(unexpected()) };
        // A token must not come back to life after a power loss when its certificate is out.
        self.synced(index).await?;
        let name = format!("{role}-{number}");
        let certificate = authority.issue(role, &name, &public_key, self.time()).map_err(|error| match error {
            PkiError::PublicKey(_) => MasterError::Malformed(error.to_string()),
            _ => MasterError::Unavailable(error.to_string()),
        })?;
        tracing::info!("{name} has joined");
        Ok(MasterReply::Joined { certificate, authority: authority.certificate_der().to_vec(), name })
    }
}

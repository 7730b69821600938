//! A machine's certificate on disk, and how it gets one: by a join token, once.
//!
//! A directory holds `certificate`, `key`, `authority` (all DER), `name` and `master` (the address that last worked).
//! `certificate` is written last, so a directory that has one is complete.

use crate::address::MasterAddress;
use anyhow::{Context, Result, bail};
use cairn_common::codec;
use cairn_common::wire::master::{MasterAnswer, MasterReply, MasterRequest, Role};
use cairn_runtime::Runtime;
use cairn_runtime::network::{Connection, Credentials, Identity, Message, Trust};
use cairn_runtime::pki::{Token, fingerprint, generate_key};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const FILE_BYTES_MAX: usize = 64 << 10;
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// Who this machine is, and where the master is.
#[derive(Debug, Clone)]
pub struct Membership {
    pub credentials: Credentials,
    pub master: SocketAddr,
}

/// What the user said about joining.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    pub role: Role,
    pub directory: &'a Path,
    pub master: Option<MasterAddress>,
    pub token: Option<&'a str>,
}

/// The stored identity, or a new one by the token. The master's address is remembered if it is right.
pub async fn membership(runtime: &Runtime, wanted: Wanted<'_>) -> Result<Membership> {
    let store = Store { runtime, directory: wanted.directory };
    let remembered = store.master()?;
    let master = wanted.master.clone().or_else(|| remembered.clone());
    let credentials = match store.load(wanted.role)? {
        Some(credentials) => {
            store.check_cluster(&credentials, &wanted)?;
            credentials
        }
        None => {
            let Some(token) = wanted.token else {
                bail!(
                    "this {} has not joined a cluster yet: create a token with `cairn token create --role {}` on the master's machine, then pass --master ADDR --token TOKEN",
                    wanted.role,
                    wanted.role
                );
            };
            let master = master.clone().context("--master ADDR is needed with a token")?;
            let credentials = join(runtime, resolved(runtime, master).await?, token, wanted.role).await?;
            store.save(&credentials)?;
            credentials
        }
    };
    let address = master.context("the address of the master is not known: pass --master ADDR")?;
    let master = resolved(runtime, address.clone()).await?;
    if remembered.as_ref() != Some(&address) {
        match reach(runtime, master, credentials.clone()).await {
            Ok(()) => store.save_master(&address)?,
            // It will go on trying; a person waits for an answer.
            Err(error) if wanted.role == Role::Chunkserver => tracing::warn!("{address} is not remembered: {error:#}"),
            Err(error) => return Err(error),
        }
    }
    Ok(Membership { credentials, master })
}

/// Whether the cluster's master is there: a mistyped address must not replace one that works.
async fn reach(runtime: &Runtime, master: SocketAddr, credentials: Credentials) -> Result<()> {
    let endpoint = runtime.network.bind(any_address(master), credentials)?;
    let connection = endpoint.connect(master, Role::Master).await.with_context(|| unreachable_master(master))?;
    connection.close("done");
    endpoint.close();
    Ok(())
}

async fn resolved(runtime: &Runtime, master: MasterAddress) -> Result<SocketAddr> {
    runtime.blocking(move || master.resolve()).await
}

/// A local address that can reach `remote`.
pub fn any_address(remote: SocketAddr) -> SocketAddr {
    if remote.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() }
}

/// One request to the master, outside any session.
pub async fn ask(runtime: &Runtime, master: SocketAddr, credentials: Credentials, request: &MasterRequest) -> Result<MasterReply> {
    let endpoint = runtime.network.bind(any_address(master), credentials)?;
    let connection: Arc<dyn Connection> = endpoint.connect(master, Role::Master).await.with_context(|| unreachable_master(master))?;
    let message = Message { head: codec::encode(request).into(), body: Default::default() };
    let reply = runtime
        .timeout(CALL_LIMIT, connection.call(message))
        .await
        .with_context(|| format!("the master at {master} does not answer"))??;
    let answer: MasterAnswer = codec::decode("the master's answer", &reply.head)?;
    connection.close("done");
    endpoint.close();
    Ok(answer?)
}

pub fn unreachable_master(master: SocketAddr) -> String {
    format!("cannot reach the master at {master}: check that this is its address, that `cairn master` runs there and that UDP reaches it")
}

async fn join(runtime: &Runtime, master: SocketAddr, token: &str, role: Role) -> Result<Credentials> {
    let token: Token = token.trim().parse().context("the join token can't be right")?;
    if token.role != role {
        bail!("the join token is for a {}, not for a {role}: create one with `cairn token create --role {role}`", token.role);
    }
    let key = generate_key().context("cannot make a key")?;
    let stranger = Credentials { identity: None, trust: Trust::Fingerprint(token.fingerprint) };
    let request = MasterRequest::Join { secret: token.secret.to_vec(), role, public_key: key.public_key_spki_der };
    match ask(runtime, master, stranger, &request).await? {
        MasterReply::Joined { certificate, authority, name } => Ok(Credentials {
            identity: Some(Identity { role, name, certificate, private_key: key.private_key_der }),
            trust: Trust::Authority(authority),
        }),
        other => bail!("the master answered something else to a join: {other:?}"),
    }
}

/// An identity's directory.
pub struct Store<'a> {
    pub runtime: &'a Runtime,
    pub directory: &'a Path,
}

impl Store<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.path(name);
        self.runtime.disk.read(&path, FILE_BYTES_MAX).with_context(|| format!("cannot read {}", path.display()))
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.path(name);
        self.runtime.disk.replace(&path, content).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The stored credentials; `None` if there are none.
    pub fn load(&self, role: Role) -> Result<Option<Credentials>> {
        let exists = self.runtime.disk.exists(&self.path("certificate"));
        if !exists.with_context(|| format!("cannot look into {}", self.directory.display()))? {
            return Ok(None);
        }
        let name = String::from_utf8(self.read("name")?).context("the stored name is not text")?;
        let identity = Identity { role, name, certificate: self.read("certificate")?, private_key: self.read("key")? };
        Ok(Some(Credentials { identity: Some(identity), trust: Trust::Authority(self.read("authority")?) }))
    }

    /// Stores credentials that have an identity and an authority.
    pub fn save(&self, credentials: &Credentials) -> Result<()> {
        let (Some(identity), Trust::Authority(authority)) = (&credentials.identity, &credentials.trust) else {
            bail!("only complete credentials can be stored");
        };
        make_private(self.directory)?;
        self.write("authority", authority)?;
        self.write("name", identity.name.as_bytes())?;
        self.write("key", &identity.private_key)?;
        self.write("certificate", &identity.certificate)
    }

    /// A token of another cluster than the stored certificate's is a mistake; any other token is of no use any more, and none is needed.
    fn check_cluster(&self, stored: &Credentials, wanted: &Wanted<'_>) -> Result<()> {
        let (Some(token), Trust::Authority(authority)) = (wanted.token, &stored.trust) else { return Ok(()) };
        let Ok(token) = token.trim().parse::<Token>() else { return Ok(()) };
        if token.fingerprint != fingerprint(authority) {
            let (role, directory) = (wanted.role, self.directory.display());
            bail!(
                "{directory} holds the certificate of a {role} of another cluster than the token's: name another directory, or remove this one"
            );
        }
        Ok(())
    }

    fn master(&self) -> Result<Option<MasterAddress>> {
        if !self.runtime.disk.exists(&self.path("master")).unwrap_or(false) {
            return Ok(None);
        }
        let text = String::from_utf8(self.read("master")?).unwrap_or_default();
        let path = self.path("master");
        text.trim().parse().map(Some).with_context(|| format!("{} does not hold an address", path.display()))
    }

    pub fn save_master(&self, master: &MasterAddress) -> Result<()> {
        self.runtime.disk.create_directory_all(self.directory)?;
        self.write("master", master.to_string().as_bytes())
    }
}

/// Makes the directory of an identity. Keys are nobody else's business.
pub fn make_private(directory: &Path) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.with_context(|| format!("cannot make {}", directory.display()))?;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))
        .with_context(|| format!("cannot protect {}", directory.display()))
}

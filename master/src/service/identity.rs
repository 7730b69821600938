//! The keys of the cluster and of its master, in the data directory. `authority.key` is the cluster: keep a copy in a safe place.
//!
//! | file | what (DER) |
//! |---|---|
//! | `authority.key`, `authority.cert` | what signs the certificates of all members |
//! | `master.key`, `master.cert` | who this master is |
//!
//! A key is written before its certificate, and a certificate is the sign that both are there.

use super::settings::StartError;
use cairn_common::wire::master::Role;
use cairn_runtime::Runtime;
use cairn_runtime::network::{Credentials, Identity, Trust};
use cairn_runtime::pki::{Authority, generate_key};
use std::path::{Path, PathBuf};

/// Longest key or certificate that is read.
const FILE_BYTES_MAX: usize = 64 << 10;
const MASTER_NAME: &str = "master";

/// Who the master is, and what lets others join.
pub struct Keys {
    pub credentials: Credentials,
    pub authority: Authority,
}

/// Loads the keys, and makes what is missing. An existing cluster must have its authority. Blocks.
pub fn load_or_create(runtime: &Runtime, directory: &Path, cluster_exists: bool) -> Result<Keys, StartError> {
    let files = Files { runtime, directory };
    let (certificate, key) = match files.read_pair("authority")? {
        Some(pair) => pair,
        None if cluster_exists => return Err(StartError::NoAuthority(files.path("authority.cert"))),
        None => {
            let authority = Authority::create(runtime.wall())?;
            let pair = (authority.certificate_der().to_vec(), authority.private_key_der().to_vec());
            files.write_pair("authority", &pair)?;
            pair
        }
    };
    let authority = Authority::from_der(&certificate, &key)?;
    let (certificate, private_key) = match files.read_pair("master")? {
        Some(pair) => pair,
        None => {
            let key = generate_key()?;
            let certificate = authority.issue(Role::Master, MASTER_NAME, &key.public_key_spki_der, runtime.wall())?;
            let pair = (certificate, key.private_key_der);
            files.write_pair("master", &pair)?;
            pair
        }
    };
    let identity = Identity { role: Role::Master, name: MASTER_NAME.to_owned(), certificate, private_key };
    let trust = Trust::Authority(authority.certificate_der().to_vec());
    Ok(Keys { credentials: Credentials { identity: Some(identity), trust }, authority })
}

/// A certificate and its private key.
type Pair = (Vec<u8>, Vec<u8>);

struct Files<'a> {
    runtime: &'a Runtime,
    directory: &'a Path,
}

impl Files<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// `None` if there is no certificate.
    fn read_pair(&self, name: &str) -> Result<Option<Pair>, StartError> {
        let path = self.path(&format!("{name}.cert"));
        if !self.runtime.disk.exists(&path).map_err(|error| StartError::Identity { path: path.clone(), error })? {
            return Ok(None);
        }
        Ok(Some((self.read(path)?, self.read(self.path(&format!("{name}.key")))?)))
    }

    fn read(&self, path: PathBuf) -> Result<Vec<u8>, StartError> {
        self.runtime.disk.read(&path, FILE_BYTES_MAX).map_err(|error| StartError::Identity { path, error })
    }

    fn write_pair(&self, name: &str, (certificate, key): &Pair) -> Result<(), StartError> {
        for (suffix, content) in [("key", key), ("cert", certificate)] {
            let path = self.path(&format!("{name}.{suffix}"));
            self.runtime.disk.replace(&path, content).map_err(|error| StartError::Identity { path, error })?;
        }
        Ok(())
    }
}

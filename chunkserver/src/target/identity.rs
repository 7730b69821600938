//! Who a target is: `target.json` in its directory.

use crate::segment::TargetUuid;
use cairn_common::ids::TargetId;
use cairn_runtime::disk::Disk;
use cairn_runtime::network::Trust;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub const IDENTITY_FILE: &str = "target.json";
const FORMAT_VERSION: u32 = 1;
const IDENTITY_BYTES_MAX: usize = 64 << 10;

/// Which cluster a target belongs to: the start of the BLAKE3 fingerprint of the cluster's authority.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClusterKey(pub [u8; 16]);

impl ClusterKey {
    /// The cluster whose certificates one trusts.
    pub fn of(trust: &Trust) -> Self {
        let fingerprint = match trust {
            Trust::Authority(certificate) => *blake3::hash(certificate).as_bytes(),
            Trust::Fingerprint(fingerprint) => *fingerprint,
        };
        Self(std::array::from_fn(|i| fingerprint[i]))
    }
}

impl fmt::Display for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a target remembers of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub uuid: TargetUuid,
    pub cluster: ClusterKey,
    /// Given by the master when the target is first announced.
    pub id: Option<TargetId>,
}

/// The file as it stands on disk, for people to read.
#[derive(Serialize, Deserialize)]
struct IdentityFile {
    format: u32,
    uuid: String,
    cluster: String,
    id: Option<u32>,
}

impl Identity {
    /// Reads the identity; `None` if there is none yet. An error of kind `InvalidData` says what is wrong with the file.
    pub fn load(disk: &Arc<dyn Disk>, directory: &Path) -> io::Result<Option<Self>> {
        let path = directory.join(IDENTITY_FILE);
        if !disk.exists(&path)? {
            return Ok(None);
        }
        let content = disk.read(&path, IDENTITY_BYTES_MAX)?;
        let wrong = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
        let file: IdentityFile = serde_json::from_slice(&content).map_err(|error| wrong(error.to_string()))?;
        if file.format != FORMAT_VERSION {
            return Err(wrong(format!("its format is {}, and this program knows {FORMAT_VERSION}", file.format)));
        }
        let bytes = |name: &str, text: &str| {
            let decoded = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
            decoded.ok_or_else(|| wrong(format!("its {name} is not 32 hexadecimal digits")))
        };
        let uuid = TargetUuid(bytes("uuid", &file.uuid)?);
        let cluster = ClusterKey(bytes("cluster", &file.cluster)?);
        Ok(Some(Self { uuid, cluster, id: file.id.map(TargetId) }))
    }

    /// Writes the identity, durably.
    pub fn store(&self, disk: &Arc<dyn Disk>, directory: &Path) -> io::Result<()> {
        let file = IdentityFile {
            format: FORMAT_VERSION,
            uuid: self.uuid.to_string(),
            cluster: self.cluster.to_string(),
            id: self.id.map(|id| id.0),
        };
        let mut content = serde_json::to_vec_pretty(&file).map_err(io::Error::other)?;
        content.push(b'\n');
        disk.replace(&directory.join(IDENTITY_FILE), &content)
    }
}

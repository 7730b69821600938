//! What every test starts with: a simulated world with a fake master and one client.

use super::fake_master::FakeMaster;
use crate::{FileSystem, Settings};
use cairn_common::attributes::{FileKind, NewInode, Owner};
use cairn_common::wire::master::Role;
use cairn_runtime::Runtime;
use cairn_runtime::network::{Credentials, Identity, Trust};
use cairn_runtime::sim::{Crash, Node, World};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

pub const PORT: u16 = 7000;

pub fn credentials(role: Role, name: &str) -> Credentials {
    let identity = Identity { role, name: name.to_owned(), certificate: Vec::new(), private_key: Vec::new() };
    Credentials { identity: Some(identity), trust: Trust::Authority(Vec::new()) }
}

pub fn any(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)
}

/// A master that serves, and a client that is connected to it.
pub struct Pair {
    pub world: World,
    pub master: FakeMaster,
    pub master_node: Node,
    pub client_node: Node,
    pub runtime: Runtime,
    pub fs: FileSystem,
}

impl Pair {
    pub async fn new(world: World) -> Self {
        Self::with(world, FakeMaster::default(), |_| ()).await
    }

    pub async fn with(world: World, master: FakeMaster, change: impl FnOnce(&mut Settings)) -> Self {
        let (master_node, client_node) = (world.node("master"), world.node("client"));
        master.serve(&master_node.runtime(), PORT);
        let runtime = client_node.runtime();
        let mut settings = settings_for(&master_node);
        change(&mut settings);
        let fs = FileSystem::connect(runtime.clone(), settings).await.expect("a master that answers");
        Self { world, master, master_node, client_node, runtime, fs }
    }

    /// The master dies and comes back after a while.
    pub async fn restart_master(&self, pause: Duration) {
        self.master_node.crash(Crash::Kill);
        self.world.sleep(pause).await;
        self.master.serve(&self.master_node.runtime(), PORT);
    }

    pub fn elapsed(&self, since: cairn_runtime::clock::Moment) -> Duration {
        self.runtime.now().since(since)
    }
}

pub fn settings_for(master: &Node) -> Settings {
    let mut settings = Settings::new(master.address(PORT), credentials(Role::Client, "client"));
    // Nobody asks for anything by himself while requests are counted.
    settings.compaction_bytes_per_second = 0;
    settings.write_buffer_bytes = 16 << 20;
    settings.block_cache_bytes = 4 << 20;
    settings
}

pub fn new_file() -> NewInode {
    NewInode { kind: FileKind::Regular, mode: 0o644, owner: Owner { uid: 0, gid: 0 }, rdev: 0, symlink_target: Vec::new(), umask: 0 }
}

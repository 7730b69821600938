//! A cluster of real roles on simulated machines.

use cairn_chunkserver::{HealingSettings, TargetSettings};
use cairn_client::FileSystem;
use cairn_common::limits::DELETION_GRACE;
use cairn_common::scheme::Scheme;
use cairn_common::wire::master::Role;
use cairn_master::state::record::Rules;
use cairn_runtime::Runtime;
use cairn_runtime::network::{Credentials, Identity, Trust};
use cairn_runtime::sim::{Crash, Node, World, for_each_seed};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::oneshot;

const MASTER_PORT: u16 = 7440;
const CHUNKSERVER_PORT: u16 = 7450;
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Small segments, so that a short test rolls over and recovers several.
const SEGMENT_BYTES: u64 = 4 << 20;
const LOG_SEGMENT_BYTES: u64 = 1 << 20;
/// Few extents are many, so that there is much to compact in small files.
const RULES: Rules = Rules {
    deletion_grace: DELETION_GRACE,
    window_many: 3,
    window_too_many: 6,
    window_patience: Duration::from_millis(500),
    sparse_patience: Duration::from_millis(800),
};
pub const MASTER_DIRECTORY: &str = "/master";
pub const DATA_DIRECTORY: &str = "/data";
/// What stands for the certificate of the cluster's authority.
const AUTHORITY: &[u8] = b"the authority of the simulated world";

/// Tells a story of up to four hours in a world of each seed.
pub fn live<F: Future<Output = ()>>(seeds: u64, story: impl Fn(World) -> F) {
    for_each_seed(seeds, |seed| {
        let world = World::new(seed);
        world.set_time_limit(Duration::from_secs(4 * 3600));
        world.run_until(story(world.clone()));
    });
}

/// Master, chunkservers and machines for clients, each a node of the world.
pub struct SimCluster {
    pub world: World,
    pub scheme: Scheme,
    pub master: Node,
    pub chunkservers: Vec<Node>,
    /// Of chunkservers started from now on.
    pub healing: HealingSettings,
}

impl SimCluster {
    /// Starts everything and waits until all slots are held.
    pub async fn start(world: World, scheme: Scheme, chunkservers: usize) -> Self {
        let cluster = Self::off(world, scheme, chunkservers);
        cluster.start_master().await;
        for number in 0..chunkservers {
            cluster.start_chunkserver(number).await;
        }
        cluster
    }

    /// The nodes alone: nothing runs yet.
    pub fn off(world: World, scheme: Scheme, chunkservers: usize) -> Self {
        let master = world.node("master");
        let nodes = (1..=chunkservers).map(|number| world.node(&format!("chunkserver-{number}"))).collect();
        Self { world, scheme, master, chunkservers: nodes, healing: HealingSettings::default() }
    }

    pub fn master_address(&self) -> SocketAddr {
        self.master.address(MASTER_PORT)
    }

    pub fn master_settings(&self) -> cairn_master::service::Settings {
        let mut settings = cairn_master::service::Settings::new(MASTER_DIRECTORY, self.master_address());
        settings.identity = Some(credentials(Role::Master, "master"));
        settings.scheme = self.scheme;
        settings.prefix_bits = 4;
        settings.log_segment_bytes = LOG_SEGMENT_BYTES;
        settings.rules = RULES;
        settings
    }

    pub fn chunkserver_settings(&self, number: usize) -> cairn_chunkserver::service::Settings {
        cairn_chunkserver::service::Settings {
            master: self.master_address(),
            listen: self.chunkservers[number].address(CHUNKSERVER_PORT),
            data: vec![PathBuf::from(DATA_DIRECTORY)],
            labels: Default::default(),
            target: TargetSettings { segment_bytes: SEGMENT_BYTES, reserve_bytes: Some(1 << 20), ..TargetSettings::default() },
            healing: self.healing.clone(),
            metrics: None,
        }
    }

    pub fn client_settings(&self, name: &str) -> cairn_client::Settings {
        let mut settings = cairn_client::Settings::new(self.master_address(), credentials(Role::Client, name));
        settings.description = name.to_owned();
        settings.write_buffer_bytes = 32 << 20;
        settings.block_cache_bytes = 8 << 20;
        settings
    }

    /// Starts the master, or starts it again after a crash.
    pub async fn start_master(&self) {
        let served = self.master_in_new_life(|reason| panic!("the master stopped: {reason}"));
        served.await.expect("the master starts");
    }

    /// Starts the master without waiting for it; `ended` is told should it stop.
    pub fn launch_master(&self, ended: impl FnOnce(String) + Send + 'static) {
        // Whether it serves is seen by asking it.
        drop(self.master_in_new_life(ended));
    }

    fn master_in_new_life(&self, ended: impl FnOnce(String) + Send + 'static) -> oneshot::Receiver<cairn_master::service::Serving> {
        let (runtime, settings) = (self.master.runtime(), self.master_settings());
        let (ready, served) = oneshot::channel();
        let machine = runtime.clone();
        runtime.spawn("master", async move {
            if let Err(error) = cairn_master::service::run(machine, settings, ready, std::future::pending()).await {
                ended(error.to_string());
            }
        });
        served
    }

    /// Starts a chunkserver, or starts it again after a crash.
    pub async fn start_chunkserver(&self, number: usize) {
        let served = self.chunkserver_in_new_life(number, |reason| panic!("a chunkserver stopped: {reason}"));
        served.await.expect("the chunkserver starts");
    }

    /// Starts a chunkserver without waiting for it; `ended` is told should it stop.
    pub fn launch_chunkserver(&self, number: usize, ended: impl FnOnce(String) + Send + 'static) {
        // Whether it serves is seen in the map.
        drop(self.chunkserver_in_new_life(number, ended));
    }

    fn chunkserver_in_new_life(
        &self,
        number: usize,
        ended: impl FnOnce(String) + Send + 'static,
    ) -> oneshot::Receiver<cairn_chunkserver::Serving> {
        let (runtime, settings) = (self.chunkservers[number].runtime(), self.chunkserver_settings(number));
        let credentials = credentials(Role::Chunkserver, self.chunkservers[number].name());
        let (ready, served) = oneshot::channel();
        let machine = runtime.clone();
        runtime.spawn("chunkserver", async move {
            if let Err(error) = cairn_chunkserver::service::run(machine, settings, credentials, ready, std::future::pending()).await {
                ended(error.to_string());
            }
        });
        served
    }

    pub fn crash_master(&self, crash: Crash) {
        self.master.crash(crash);
    }

    pub fn crash_chunkserver(&self, number: usize, crash: Crash) {
        self.chunkservers[number].crash(crash);
    }

    /// A client on a machine of its own.
    pub async fn client(&self, name: &str) -> (Runtime, FileSystem) {
        let runtime = self.world.node(name).runtime();
        let fs = FileSystem::connect(runtime.clone(), self.client_settings(name)).await.expect("the client connects");
        (runtime, fs)
    }

    /// Waits until every slot of every group has a serving holder, as this client's map says.
    pub async fn wait_until_whole(&self, fs: &FileSystem) {
        let whole = async {
            loop {
                let map = fs.map();
                let serves = |holder| map.target(holder).is_some_and(|target| target.state.is_serving());
                let slots = || map.pools.iter().flat_map(|pool| &pool.groups).flat_map(|group| &group.slots);
                if slots().next().is_some() && slots().all(|slot| slot.holder.is_some_and(serves)) {
                    return;
                }
                self.world.sleep(POLL_INTERVAL).await;
            }
        };
        whole.await;
    }
}

pub fn credentials(role: Role, name: &str) -> Credentials {
    let identity = Identity { role, name: name.to_owned(), certificate: Vec::new(), private_key: Vec::new() };
    Credentials { identity: Some(identity), trust: trust() }
}

/// Whom everybody in the simulated world trusts.
pub fn trust() -> Trust {
    Trust::Authority(AUTHORITY.to_vec())
}

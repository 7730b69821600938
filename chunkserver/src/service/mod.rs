//! The role of a chunkserver: its targets behind one port, and the link to the master.
//!
//! - [`serve`] answers requests, each under the limits of [`Admission`](admission::Admission).
//! - [`metrics`] counts, and shows what it counted.
//! - [`master_link`] announces the targets and reports their state, for as long as the process lives.
//!
//! A target that fails or can't be opened does not stop the others, but what an operator must put right (a wrong or locked
//! directory, a foreign disk) stops the start, while there is somebody to read the message.

mod admission;
mod master_link;
mod metrics;
mod serve;
#[cfg(test)]
mod tests;

use self::metrics::Metrics;
use crate::healing::master::MasterHandle;
use crate::healing::{Healer, HealingSettings};
use crate::target::{ClusterKey, OpenError, Target, TargetSettings};
use cairn_common::ids::{Incarnation, TargetId};
use cairn_runtime::Runtime;
use cairn_runtime::clock::Moment;
use cairn_runtime::network::{ConnectError, Credentials, Endpoint, Published};
use cairn_runtime::task::TaskGuard;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How often the disks are measured.
const SPACE_INTERVAL: Duration = Duration::from_secs(1);
/// How long stopping waits for a target.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// How a chunkserver is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where the master listens.
    pub master: SocketAddr,
    /// Where this server listens, for the whole cluster. An unspecified IP stands for all of this machine's.
    pub listen: SocketAddr,
    /// The data directories: one per disk.
    pub data: Vec<PathBuf>,
    /// Failure domains and whatever else placement rules go by: `rack=a`, `host=b`.
    pub labels: BTreeMap<String, String>,
    pub target: TargetSettings,
    pub healing: HealingSettings,
    /// Where metrics are shown over HTTP, if they are.
    pub metrics: Option<SocketAddr>,
}

/// A chunkserver that has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serving {
    pub address: SocketAddr,
    pub incarnation: Incarnation,
}

/// Why a chunkserver did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("no data directory was given: name at least one")]
    NoData,
    #[error("{} was given twice", .0.display())]
    Twice(PathBuf),
    #[error(transparent)]
    Target(OpenError),
    #[error("the port could not be opened: {0}")]
    Bind(ConnectError),
    #[error("metrics can't be shown: {0}")]
    Metrics(ConnectError),
}

/// What all parts of the service share.
struct Shared {
    runtime: Runtime,
    incarnation: Incarnation,
    targets: Vec<Target>,
    settings: Settings,
    healer: Arc<Healer>,
    metrics: Metrics,
    started: Moment,
}

impl Shared {
    fn target(&self, id: TargetId) -> Option<&Target> {
        self.targets.iter().find(|target| target.identity().id == Some(id))
    }
}

/// Runs a chunkserver until `shutdown` is ready; then everything acknowledged is made durable. `ready` is told when the port
/// is open and all shards can be read; the master may not know of us then.
pub async fn run(
    runtime: Runtime,
    settings: Settings,
    credentials: Credentials,
    ready: oneshot::Sender<Serving>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), StartError> {
    let cluster = ClusterKey::of(&credentials.trust);
    let targets = open_targets(&runtime, &settings, cluster).await?;
    let endpoint = runtime.network.bind(settings.listen, credentials).map_err(StartError::Bind)?;
    let incarnation = Incarnation(runtime.random_u64());
    let master = Arc::new(MasterHandle::new(runtime.clone(), incarnation));
    let healer = Healer::new(runtime.clone(), settings.healing.clone(), &targets, master, endpoint.clone());
    let started = runtime.now();
    let shared = Arc::new(Shared { runtime, incarnation, targets, settings, healer, metrics: Metrics::default(), started });
    let metrics = publish(&shared)?;
    let tasks = start_tasks(&shared, &endpoint);
    let serving = Serving { address: endpoint.local_address(), incarnation };
    tracing::info!("chunkserver listens on {} with {} targets", serving.address, shared.targets.len());
    // Whoever started us may not want to know.
    let _ = ready.send(serving);
    shutdown.await;
    tracing::info!("chunkserver is stopping");
    drop((tasks, metrics));
    endpoint.close();
    close_targets(&shared).await;
    Ok(())
}

/// Shows metrics, if anybody wants to see them.
fn publish(shared: &Arc<Shared>) -> Result<Option<Published>, StartError> {
    let Some(address) = shared.settings.metrics else { return Ok(None) };
    let shown = shared.clone();
    let published = shared.runtime.network.publish(address, Arc::new(move || shown.metrics_page())).map_err(StartError::Metrics)?;
    tracing::info!("metrics are at http://{}/metrics", published.address);
    Ok(Some(published))
}

/// Opens all targets. A disk that can't be read is left out if others can.
async fn open_targets(runtime: &Runtime, settings: &Settings, cluster: ClusterKey) -> Result<Vec<Target>, StartError> {
    let mut seen = BTreeSet::new();
    if let Some(twice) = settings.data.iter().find(|directory| !seen.insert(*directory)) {
        return Err(StartError::Twice(twice.clone()));
    }
    let mut targets = Vec::new();
    let mut failed = None;
    for directory in &settings.data {
        match Target::open(runtime, directory.clone(), cluster, settings.target.clone()).await {
            Ok(target) => targets.push(target),
            Err(error @ (OpenError::Io { .. } | OpenError::Index { .. })) => {
                tracing::error!("{} is left out: {error}", directory.display());
                failed = Some(error);
            }
            Err(error) => return Err(StartError::Target(error)),
        }
    }
    match (targets.is_empty(), failed) {
        (false, _) => Ok(targets),
        (true, Some(error)) => Err(StartError::Target(error)),
        (true, None) => Err(StartError::NoData),
    }
}

fn start_tasks(shared: &Arc<Shared>, endpoint: &Arc<dyn Endpoint>) -> Vec<TaskGuard> {
    let runtime = &shared.runtime;
    let server = serve::Server::new(shared.clone());
    let tasks = [
        runtime.spawn("chunkserver accept", server.clone().accept(endpoint.clone())),
        runtime.spawn("chunkserver master link", master_link::MasterLink::new(shared.clone(), endpoint.clone(), server).run()),
        runtime.spawn("chunkserver space", measure(shared.clone())),
    ];
    tasks.into_iter().map(|task| task.abort_on_drop()).chain(shared.healer.start()).collect()
}

/// Keeps the figures of heartbeats fresh. A disk that hangs holds up only its own figures.
async fn measure(shared: Arc<Shared>) {
    let mut running: Vec<TaskGuard> = Vec::new();
    for target in &shared.targets {
        let (target, runtime) = (target.clone(), shared.runtime.clone());
        let task = shared.runtime.spawn("target space", async move {
            loop {
                target.refresh().await;
                runtime.sleep(SPACE_INTERVAL).await;
            }
        });
        running.push(task.abort_on_drop());
    }
    std::future::pending::<()>().await;
}

async fn close_targets(shared: &Shared) {
    for target in &shared.targets {
        match shared.runtime.timeout(CLOSE_TIMEOUT, target.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!("{}: {error}", target.directory().display()),
            Err(elapsed) => tracing::error!("{}: {elapsed}", target.directory().display()),
        }
    }
}

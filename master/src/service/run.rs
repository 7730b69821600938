//! Start and end of a master.

use super::master::{Master, Namespace};
use super::settings::{Settings, StartError};
use super::{background, connections, identity};
use crate::state::command::NewCluster;
use crate::state::{Command, Outcome, Stamped, read};
use crate::store::tables::StoreError;
use crate::store::{OpenError, Store};
use cairn_runtime::Runtime;
use cairn_runtime::network::{Credentials, Endpoint, Published};
use cairn_runtime::pki::Authority;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::oneshot;

const DEFAULT_POOL_NAME: &str = "default";

/// A master that has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serving {
    /// Where it listens.
    pub address: SocketAddr,
    pub cluster: [u8; 16],
}

/// Runs a master until `shutdown` is ready, or until its disk fails: then it stops at once, with an error. At the first start in
/// a directory it makes the cluster. `ready` is told when the port is open and everything is recovered.
pub async fn run(
    runtime: Runtime,
    settings: Settings,
    ready: oneshot::Sender<Serving>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), StartError> {
    let store = Store::<Namespace>::open(runtime.clone(), settings.store()).await?;
    let cluster_exists = store.read(read::cluster).map_err(OpenError::Store)?.is_some();
    let (credentials, authority) = credentials(&runtime, &settings, cluster_exists).await?;
    if !cluster_exists {
        initialise(&runtime, &settings, &store).await?;
    }
    skip_numbers(&runtime, &store).await?;
    let endpoint = runtime.network.bind(settings.listen, credentials).map_err(StartError::Bind)?;
    let local = endpoint.local_address();
    let address = settings.advertise.unwrap_or(local);
    let master = Master::new(runtime, settings, store, authority, address).map_err(OpenError::Store)?;
    serve(Arc::new(master), endpoint, local, ready, shutdown).await
}

async fn serve(
    master: Arc<Master>,
    endpoint: Arc<dyn Endpoint>,
    address: SocketAddr,
    ready: oneshot::Sender<Serving>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), StartError> {
    let cluster = master.look(read::cluster).map_err(StartError::Failed)?.map_or([0; 16], |cluster| cluster.uuid);
    let background = background::start(&master);
    let metrics = publish(&master)?;
    let accepting = master.runtime.spawn("master accept", connections::accept(master.clone(), endpoint.clone())).abort_on_drop();
    tracing::info!(last = %master.store.last(), "master listens on {address}");
    // Whoever started us may not want to know.
    let _ = ready.send(Serving { address, cluster });
    let failure = tokio::select! {
        biased;
        failure = master.store.failed() => Some(failure),
        () = shutdown => None,
    };
    tracing::info!("master is stopping");
    drop((accepting, background, metrics));
    endpoint.close();
    match failure {
        None => master.store.flush().await.map_err(failed),
        Some(failure) => Err(failed(failure)),
    }
}

/// Shows metrics, if anybody wants to see them.
fn publish(master: &Arc<Master>) -> Result<Option<Published>, StartError> {
    let Some(address) = master.settings.metrics else { return Ok(None) };
    let shown = master.clone();
    let published = master.runtime.network.publish(address, Arc::new(move || shown.metrics_page())).map_err(StartError::Metrics)?;
    tracing::info!("metrics are at http://{}/metrics", published.address);
    Ok(Some(published))
}

fn failed(error: StoreError) -> StartError {
    StartError::Failed(super::master::unavailable(error))
}

/// As the settings say, or from the data directory.
async fn credentials(runtime: &Runtime, settings: &Settings, cluster_exists: bool) -> Result<(Credentials, Option<Authority>), StartError> {
    if let Some(given) = &settings.identity {
        return Ok((given.clone(), None));
    }
    let (machine, data) = (runtime.clone(), settings.data.clone());
    let keys = runtime.blocking(move || identity::load_or_create(&machine, &data, cluster_exists)).await?;
    Ok((keys.credentials, Some(keys.authority)))
}

/// A power loss may have swallowed the last commands, and with them inode numbers that clients have seen: a late commit
/// must not find another file under its number. So each start leaves a gap, and serves only once that is stable.
async fn skip_numbers(runtime: &Runtime, store: &Store<Namespace>) -> Result<(), StartError> {
    let command = Stamped { at: store.next_time(runtime.wall()), command: Command::SkipNumbers };
    let (_, index) = store.submit(&command).map_err(failed)?;
    store.synced(index).await.map_err(failed)
}

/// The first command of a cluster.
async fn initialise(runtime: &Runtime, settings: &Settings, store: &Store<Namespace>) -> Result<(), StartError> {
    let new = NewCluster {
        cluster: runtime.random_bytes(),
        pool_name: DEFAULT_POOL_NAME.to_owned(),
        scheme: settings.scheme,
        prefix_bits: settings.prefix_bits,
        root_owner: settings.root_owner,
        placement_seed: runtime.random_u64(),
    };
    // The rules first: a crash in between leaves no cluster, and the next start begins anew.
    for command in [Command::SetRules(settings.rules), Command::Initialise(new)] {
        let command = Stamped { at: store.next_time(runtime.wall()), command };
        let (outcome, index) = store.submit(&command).map_err(OpenError::Store)?;
        if let Outcome::Refused(error) = outcome {
            return Err(StartError::Initialise(error));
        }
        store.synced(index).await.map_err(OpenError::Store)?;
    }
    Ok(())
}

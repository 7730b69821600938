//! `cairn up`: a whole cluster in one process. Each role has a thread and a runtime of its own, just as it would have a
//! process, and they talk QUIC to each other.

use crate::arguments::Up;
use crate::commands::mount::{mount_at, mount_options, publish_metrics};
use crate::commands::token::operator;
use crate::identity::{Wanted, ask, membership};
use crate::{places, signals};
use anyhow::{Context, Result, anyhow, bail};
use cairn_chunkserver::{HealingSettings, TargetSettings};
use cairn_client::FileSystem;
use cairn_common::scheme::Scheme;
use cairn_common::wire::master::{MasterReply, MasterRequest, Role};
use cairn_fuse::Mounted;
use cairn_runtime::{Runtime, real};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// How long the cluster may take to come up.
const START_LIMIT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

pub fn run(options: Up) -> Result<()> {
    super::in_role("up", |runtime| async move { up(runtime, options).await })
}

async fn up(runtime: Runtime, options: Up) -> Result<()> {
    let data = match &options.data {
        Some(data) => data.clone(),
        None => places::default_cluster()?,
    };
    let mount_options = mount_options(&options.options)?;
    if let Some(scheme) = options.scheme {
        // Told before a cluster is made that nothing can be written to.
        check_writable(scheme, options.chunkservers)?;
    }
    let (stop, stopped) = watch::channel(false);
    let mut cluster = Cluster { data, stop, stopped, roles: Vec::new() };
    let outcome = serve(&runtime, &mut cluster, &options, mount_options).await;
    let ended = cluster.end(&runtime).await;
    outcome.and(ended)
}

async fn serve(runtime: &Runtime, cluster: &mut Cluster, options: &Up, mount_options: cairn_fuse::MountOptions) -> Result<()> {
    let master = cluster.start_master(runtime, options).await?;
    let scheme = cluster.scheme(runtime, options).await?;
    let wanted = cluster.chunkservers_wanted(runtime, options, scheme)?;
    for number in 1..=wanted {
        cluster.start_chunkserver(runtime, number, master, metrics_of(options, number)?).await?;
    }
    cluster.wait_until_whole(runtime, wanted).await?;
    println!(
        "CairnFS is up: {scheme} over {wanted} chunkserver{}, state in {}",
        if wanted == 1 { "" } else { "s" },
        cluster.data.display()
    );
    let mounted = match &options.mount {
        Some(directory) => Some(cluster.mount(runtime, master, directory, mount_options).await?),
        None => None,
    };
    let _published = match &mounted {
        Some((fs, _)) => publish_metrics(runtime, fs, metrics_of(options, wanted + 1)?)?,
        None => None,
    };
    cluster.tell_what_next(master, options.mount.as_deref());
    if let Some(text) = options.metrics.and_then(|master| where_metrics_are(master, wanted, options.mount.is_some())) {
        println!("{text}");
    }
    signals::asked_to_stop().await;
    println!("\nstopping ...");
    match mounted {
        Some((fs, mounted)) => unmount(runtime, fs, mounted).await,
        None => Ok(()),
    }
}

/// Where the role with this number shows its metrics: the master is number 0, and the mount comes after the chunkservers.
fn metrics_of(options: &Up, number: u16) -> Result<Option<SocketAddr>> {
    let Some(master) = options.metrics else { return Ok(None) };
    let port = match master.port() {
        0 => 0,
        first => first.checked_add(number).with_context(|| format!("--metrics: there are not enough ports after {first}"))?,
    };
    Ok(Some(SocketAddr::new(master.ip(), port)))
}

/// A line about the ports, if they are known beforehand.
fn where_metrics_are(master: SocketAddr, chunkservers: u16, has_mount: bool) -> Option<String> {
    let first = Some(master.port()).filter(|port| *port > 0)?;
    let mount = if has_mount { format!(", {} the mount", first + chunkservers + 1) } else { String::new() };
    Some(format!("metrics: http://{master}/metrics is the master, ports {} to {} the chunkservers{mount}", first + 1, first + chunkservers))
}

/// A scheme with redundancy is not written without any.
fn check_writable(scheme: Scheme, chunkservers: u16) -> Result<()> {
    if chunkservers == 1 && scheme.parity_shards() > 0 {
        bail!(
            "{scheme} cannot be written to a single chunkserver: pass more --chunkservers, or --scheme 1+0 for a new cluster without redundancy"
        );
    }
    Ok(())
}

async fn unmount(runtime: &Runtime, fs: FileSystem, mounted: Mounted) -> Result<()> {
    let unmounted = runtime.blocking(move || mounted.unmount()).await;
    fs.shutdown().await.context("some data could not be stored before the end")?;
    Ok(unmounted?)
}

struct Cluster {
    data: PathBuf,
    stop: watch::Sender<bool>,
    stopped: watch::Receiver<bool>,
    /// In the order of their start; ended in reverse.
    roles: Vec<(String, JoinHandle<Result<()>>)>,
}

impl Cluster {
    fn master_directory(&self) -> PathBuf {
        self.data.join("master")
    }

    fn chunkserver_directory(&self, number: u16) -> PathBuf {
        self.data.join(format!("chunkserver-{number}"))
    }

    /// Ready when the cluster is to end.
    fn asked_to_end(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopped = self.stopped.clone();
        async move {
            // An error means that the sender is gone, which is the end, too.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        }
    }

    async fn start_master(&mut self, runtime: &Runtime, options: &Up) -> Result<SocketAddr> {
        let data = self.master_directory();
        runtime.disk.create_directory_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
        let mut settings =
            cairn_master::service::Settings::new(data.clone(), super::master::remembered_port(runtime, &data, options.listen));
        settings.scheme = options.scheme.unwrap_or(settings.scheme);
        settings.root_owner = super::master::this_user();
        settings.metrics = options.metrics;
        let (ready, served) = oneshot::channel();
        let end = self.asked_to_end();
        let thread = real::run_role("master", move |runtime| async move {
            cairn_master::service::run(runtime, settings, ready, end).await.context("the master")
        })?;
        let address = self.started("master", thread, served).await?.address;
        runtime.disk.replace(&data.join("address"), address.to_string().as_bytes())?;
        super::master::prepare_operator(runtime, &data, address)?;
        Ok(super::master::reachable(address))
    }

    /// That of the cluster, which its first start fixed.
    async fn scheme(&self, runtime: &Runtime, options: &Up) -> Result<Scheme> {
        let MasterReply::Status(status) = self.ask(runtime, &MasterRequest::Status).await? else {
            bail!("the master answered something else to a request for its status");
        };
        let found = status.pools.first().context("the cluster has no pool")?.scheme;
        match options.scheme {
            Some(asked) if asked != found => bail!(
                "the cluster in {} stores data as {found}, which its first start fixed: leave out --scheme {asked}, or begin another cluster with --data",
                self.data.display()
            ),
            _ => Ok(found),
        }
    }

    /// As many as asked for, and never fewer than there were: their disks hold data.
    fn chunkservers_wanted(&self, runtime: &Runtime, options: &Up, scheme: Scheme) -> Result<u16> {
        let mut wanted = options.chunkservers;
        while runtime.disk.exists(&self.chunkserver_directory(wanted + 1))? {
            wanted += 1;
        }
        let needed = u16::from(scheme.shards());
        if wanted < needed {
            let spare = u16::from(scheme.parity_shards()).min(wanted - 1);
            eprintln!(
                "cairn: {scheme} wants {needed} chunkservers and there are {wanted}: data is stored with narrower schemes, which survive the loss of {spare}"
            );
        }
        check_writable(scheme, wanted)?;
        Ok(wanted)
    }

    async fn start_chunkserver(&mut self, runtime: &Runtime, number: u16, master: SocketAddr, metrics: Option<SocketAddr>) -> Result<()> {
        let data = self.chunkserver_directory(number);
        let identity = data.join("identity");
        let token = match runtime.disk.exists(&identity.join("certificate"))? {
            true => None,
            false => Some(self.token(runtime, Role::Chunkserver).await?),
        };
        let wanted = Wanted { role: Role::Chunkserver, directory: &identity, master: Some(master.into()), token: token.as_deref() };
        let member = membership(runtime, wanted).await?;
        let settings = cairn_chunkserver::service::Settings {
            master,
            listen: SocketAddr::new(master.ip(), 0),
            data: vec![data],
            labels: [("disk".to_owned(), number.to_string())].into(),
            target: TargetSettings::default(),
            healing: HealingSettings::default(),
            metrics,
        };
        let (ready, served) = oneshot::channel();
        let end = self.asked_to_end();
        let name = format!("chunkserver-{number}");
        let thread = real::run_role_with(super::role_for_targets(settings.data.len()), &name, move |runtime| async move {
            cairn_chunkserver::service::run(runtime, settings, member.credentials, ready, end).await.context("a chunkserver")
        })?;
        self.started(&name, thread, served).await.map(|_| ())
    }

    /// Waits until a role serves; if it ends instead, that is why.
    async fn started<T>(&mut self, name: &str, thread: JoinHandle<Result<()>>, served: oneshot::Receiver<T>) -> Result<T> {
        match served.await {
            Ok(serving) => {
                self.roles.push((name.to_owned(), thread));
                Ok(serving)
            }
            Err(_) => match thread.join() {
                Ok(Err(error)) => Err(error),
                Ok(Ok(())) => bail!("the {name} ended before it served"),
                Err(_) => bail!("the {name} panicked; the reason is above"),
            },
        }
    }

    async fn ask(&self, runtime: &Runtime, request: &MasterRequest) -> Result<MasterReply> {
        let access = crate::arguments::Access { master: None, token: None, identity: None };
        let member = operator(runtime, &access, Some(&self.master_directory())).await?;
        ask(runtime, member.master, member.credentials, request).await
    }

    async fn token(&self, runtime: &Runtime, role: Role) -> Result<String> {
        match self.ask(runtime, &MasterRequest::CreateToken { role, lifetime_seconds: 60 }).await? {
            MasterReply::Token { token } => Ok(token),
            other => bail!("the master answered something else to a request for a token: {other:?}"),
        }
    }

    /// Waits until the master knows all chunkservers and has given them their slots: what is written earlier would be
    /// spread over fewer.
    async fn wait_until_whole(&self, runtime: &Runtime, wanted: u16) -> Result<()> {
        let whole = async {
            loop {
                if let MasterReply::Status(status) = self.ask(runtime, &MasterRequest::Status).await? {
                    let serving = status.servers.iter().filter(|server| server.state.is_serving()).count();
                    if serving >= usize::from(wanted)
                        && status.servers.iter().flat_map(|server| &server.targets).all(|(_, status)| status.is_some())
                    {
                        return anyhow::Ok(());
                    }
                }
                runtime.sleep(POLL_INTERVAL).await;
            }
        };
        runtime.timeout(START_LIMIT, whole).await.context("the chunkservers did not all reach the master")?
    }

    async fn mount(
        &self,
        runtime: &Runtime,
        master: SocketAddr,
        directory: &Path,
        options: cairn_fuse::MountOptions,
    ) -> Result<(FileSystem, Mounted)> {
        // What can't be looked at, such as a mount whose process died, is for the mount to judge.
        if matches!(runtime.disk.exists(directory), Ok(false)) {
            runtime.disk.create_directory_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let access = crate::arguments::Access { master: Some(master.into()), token: None, identity: None };
        let member = operator(runtime, &access, Some(&self.master_directory())).await?;
        let mut settings = cairn_client::Settings::new(master, member.credentials);
        settings.description = format!("cairn up on {}", directory.display());
        let fs = FileSystem::connect(runtime.clone(), settings).await?;
        match mount_at(runtime, &fs, None, directory, options).await {
            Ok(mounted) => Ok((fs, mounted)),
            Err(error) => {
                // Nothing was written: there is nothing to lose when this fails, too.
                let _ = fs.shutdown().await;
                Err(error)
            }
        }
    }

    fn tell_what_next(&self, master: SocketAddr, mount: Option<&Path>) {
        let data = self.master_directory();
        match mount {
            Some(directory) => println!("mounted on {}", directory.display()),
            None => {
                println!("mount:  cairn mount --master {master} --identity {} DIR", super::master::operator_directory(&data).display())
            }
        }
        println!("health: cairn status --data {}", data.display());
        println!("stop:   Ctrl-C; the next start finds everything again");
    }

    /// Ends the roles, the master last, and waits for them.
    async fn end(self, runtime: &Runtime) -> Result<()> {
        // Nobody listens if no role was started.
        let _ = self.stop.send(true);
        let roles = self.roles;
        runtime
            .blocking(move || {
                let mut outcome = Ok(());
                for (name, thread) in roles.into_iter().rev() {
                    let ended = thread.join().map_err(|_| anyhow!("the {name} panicked; the reason is above")).flatten();
                    outcome = outcome.and(ended);
                }
                outcome
            })
            .await
    }
}

//! `cairn master`

use crate::arguments::{Master, MasterAction};
use crate::identity::Store;
use crate::local_file::{file_to_read, whole_new_file};
use crate::places::check_not_on_cairn;
use crate::signals;
use anyhow::{Context, Result};
use cairn_common::attributes::Owner;
use cairn_common::limits::{DELETION_GRACE, DELETION_GRACE_MIN};
use cairn_common::wire::master::Role;
use cairn_master::service::{Serving, Settings, run as serve};
use cairn_runtime::Runtime;
use cairn_runtime::network::{Credentials, Identity, Trust};
use cairn_runtime::pki::{Authority, generate_key};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::oneshot;

/// Shorter, and every restart of a chunkserver would move its data.
const DEAD_AFTER_MIN: Duration = Duration::from_secs(5);
/// Shorter, and clients would lose their leases between two renewals.
const FENCING_TIME_MIN: Duration = Duration::from_secs(2);
/// Longest address that is read back.
const ADDRESS_BYTES_MAX: usize = 100;
/// Longest key or certificate that is read back.
const KEY_BYTES_MAX: usize = 64 << 10;

pub fn run(options: Master) -> Result<()> {
    match options.action {
        None => super::in_role("master", |runtime| async move { start(runtime, options).await }),
        Some(MasterAction::Dump { file }) => super::in_role("dump", move |runtime| async move { dump(&runtime, &options.data, &file) }),
        Some(MasterAction::Load { file }) => super::in_role("load", move |runtime| async move { load(&runtime, &options.data, &file) }),
    }
}

/// Where the certificate is that operators' commands on the master's machine use.
pub fn operator_directory(data: &Path) -> PathBuf {
    data.join("operator")
}

async fn start(runtime: Runtime, options: Master) -> Result<()> {
    let data = options.data;
    check_not_on_cairn(&data)?;
    let first = !runtime.disk.exists(&operator_directory(&data).join("certificate"))?;
    let mut settings = Settings::new(data.clone(), remembered_port(&runtime, &data, options.listen));
    settings.scheme = options.scheme;
    settings.root_owner = this_user();
    settings.cache_bytes = usize::try_from(options.cache << 20).context("--cache is too large")?;
    settings.dead_after = Duration::from_secs(options.dead_after);
    anyhow::ensure!(settings.dead_after >= DEAD_AFTER_MIN, "--dead-after must be at least {} s", DEAD_AFTER_MIN.as_secs());
    settings.metrics = options.metrics.metrics;
    settings.fencing_time = Duration::from_secs(options.fencing_time);
    anyhow::ensure!(settings.fencing_time >= FENCING_TIME_MIN, "--fencing-time must be at least {} s", FENCING_TIME_MIN.as_secs());
    settings.rules.deletion_grace = Duration::from_secs(options.deletion_grace);
    anyhow::ensure!(
        (DELETION_GRACE_MIN..=DELETION_GRACE).contains(&settings.rules.deletion_grace),
        "--deletion-grace must be {} to {} s: writers need the one, and chunkservers rely on the other",
        DELETION_GRACE_MIN.as_secs(),
        DELETION_GRACE.as_secs()
    );
    let (ready, served) = oneshot::channel::<Serving>();
    let machine = runtime.clone();
    let file = options.ready_file;
    runtime.spawn("announce", async move {
        let Ok(serving) = served.await else { return };
        if let Err(error) = announce(&machine, &data, file.as_deref(), serving.address, first) {
            tracing::error!("{error:#}");
        }
    });
    Ok(serve(runtime, settings, ready, signals::asked_to_stop()).await?)
}

/// Who makes a cluster owns its root directory: else an ordinary user could not write to a mount of their own.
pub fn this_user() -> Owner {
    Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
}

/// Port 0 stands for the port it had before: whoever joined knows that one.
pub fn remembered_port(runtime: &Runtime, data: &Path, listen: SocketAddr) -> SocketAddr {
    if listen.port() != 0 {
        return listen;
    }
    let before = runtime.disk.read(&data.join("address"), ADDRESS_BYTES_MAX).ok();
    let before: Option<SocketAddr> = before.and_then(|text| String::from_utf8(text).ok()?.trim().parse().ok());
    SocketAddr::new(listen.ip(), before.map_or(0, |address| address.port()))
}

fn announce(runtime: &Runtime, data: &Path, file: Option<&Path>, address: SocketAddr, first: bool) -> Result<()> {
    runtime.disk.replace(&data.join("address"), address.to_string().as_bytes())?;
    prepare_operator(runtime, data, address)?;
    println!("master serves on {address}");
    if first {
        let (port, data) = (address.port(), data.display());
        println!("A new cluster. To join it from other machines:");
        println!("  cairn token create --data {data} --role chunkserver   # here, one token per machine");
        println!("  cairn chunkserver --master HOST:{port} --token TOKEN --data DIR");
        println!("  cairn token create --data {data} --role client");
        println!("  cairn mount --master HOST:{port} --token TOKEN DIR");
    }
    super::announce_ready(runtime, file, address)
}

/// Makes the operator's certificate at the first start, and keeps the address beside it true.
pub fn prepare_operator(runtime: &Runtime, data: &Path, address: SocketAddr) -> Result<()> {
    let directory = operator_directory(data);
    let store = Store { runtime, directory: &directory };
    if store.load(Role::Client)?.is_none() {
        store.save(&operator_credentials(runtime, data)?)?;
    }
    store.save_master(&reachable(address).into())
}

fn operator_credentials(runtime: &Runtime, data: &Path) -> Result<Credentials> {
    let read = |name: &str| {
        let path = data.join(name);
        runtime.disk.read(&path, KEY_BYTES_MAX).with_context(|| format!("cannot read {}", path.display()))
    };
    let authority = Authority::from_der(&read("authority.cert")?, &read("authority.key")?)?;
    let key = generate_key()?;
    let name = "operator".to_owned();
    let certificate = authority.issue(Role::Client, &name, &key.public_key_spki_der, runtime.wall())?;
    let identity = Identity { role: Role::Client, name, certificate, private_key: key.private_key_der };
    Ok(Credentials { identity: Some(identity), trust: Trust::Authority(authority.certificate_der().to_vec()) })
}

/// An address that this machine can connect to, for one that means "all of mine".
pub fn reachable(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    let loopback: std::net::IpAddr =
        if address.is_ipv4() { std::net::Ipv4Addr::LOCALHOST.into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
    SocketAddr::new(loopback, address.port())
}

fn dump(runtime: &Runtime, data: &Path, file: &Path) -> Result<()> {
    let summary = if file == Path::new("-") {
        cairn_master::dump::dump(runtime, data, &mut std::io::stdout().lock())?
    } else {
        whole_new_file(file, |out| Ok(cairn_master::dump::dump(runtime, data, out)?))?
    };
    eprintln!("{summary}");
    Ok(())
}

fn load(runtime: &Runtime, data: &Path, file: &Path) -> Result<()> {
    let summary = if file == Path::new("-") {
        cairn_master::dump::load(runtime, data, &mut std::io::stdin().lock())?
    } else {
        cairn_master::dump::load(runtime, data, &mut file_to_read(file)?)?
    };
    eprintln!("{summary}");
    Ok(())
}

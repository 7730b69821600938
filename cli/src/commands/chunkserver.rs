//! `cairn chunkserver`

use crate::arguments::{Chunkserver, ChunkserverRole};
use crate::identity::{Wanted, membership};
use crate::places::check_not_on_cairn;
use crate::signals;
use anyhow::{Context, Result};
use cairn_chunkserver::service::{Serving, Settings, run as serve};
use cairn_chunkserver::{HealingSettings, TargetSettings};
use cairn_common::limits::MIB;
use cairn_common::wire::master::Role;
use cairn_runtime::Runtime;
use tokio::sync::oneshot;

pub fn run(options: Chunkserver) -> Result<()> {
    match options.action {
        None => {
            let settings = super::role_for_targets(options.role.data.len());
            super::in_role_with(settings, "chunkserver", |runtime| async move { start(runtime, options.role).await })
        }
        Some(action) => super::servers::run(action),
    }
}

async fn start(runtime: Runtime, options: ChunkserverRole) -> Result<()> {
    // The certificate lives with the first disk: one directory to back up, none to configure.
    let first = options.data.first().context("name at least one --data DIR")?;
    options.data.iter().try_for_each(|data| check_not_on_cairn(data))?;
    let directory = first.join("identity");
    let wanted = Wanted { role: Role::Chunkserver, directory: &directory, master: options.master, token: options.token.as_deref() };
    let member = membership(&runtime, wanted).await?;
    let healing = HealingSettings {
        repair_bytes_per_second: options.repair_rate * MIB,
        scrub_bytes_per_second: options.scrub_rate.map(|rate| rate * MIB),
        ..HealingSettings::default()
    };
    let settings = Settings {
        master: member.master,
        listen: options.listen,
        data: options.data,
        labels: options.labels.into_iter().collect(),
        target: TargetSettings::default(),
        healing,
        metrics: options.metrics.metrics,
    };
    let (ready, served) = oneshot::channel::<Serving>();
    let machine = runtime.clone();
    let file = options.ready_file;
    runtime.spawn("announce", async move {
        let Ok(serving) = served.await else { return };
        println!("chunkserver serves on {}", serving.address);
        if let Err(error) = super::announce_ready(&machine, file.as_deref(), serving.address) {
            tracing::error!("{error:#}");
        }
    });
    serve(runtime, settings, member.credentials, ready, signals::asked_to_stop()).await?;
    Ok(())
}

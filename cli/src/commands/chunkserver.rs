//! `cairn chunkserver`

use crate::arguments::Chunkserver;
use crate::identity::{Wanted, membership};
use crate::signals;
use anyhow::{Context, Result};
use cairn_chunkserver::TargetSettings;
use cairn_chunkserver::service::{Serving, Settings, run as serve};
use cairn_common::wire::master::Role;
use cairn_runtime::Runtime;
use tokio::sync::oneshot;

pub fn run(options: Chunkserver) -> Result<()> {
    super::in_role("chunkserver", |runtime| async move { start(runtime, options).await })
}

async fn start(runtime: Runtime, options: Chunkserver) -> Result<()> {
    // The certificate lives with the first disk: one directory to back up, none to configure.
    let first = options.data.first().context("name at least one --data DIR")?;
    let directory = first.join("identity");
    let wanted = Wanted { role: Role::Chunkserver, directory: &directory, master: options.master, token: options.token.as_deref() };
    let member = membership(&runtime, wanted).await?;
    let settings = Settings {
        master: member.master,
        listen: options.listen,
        data: options.data,
        labels: options.labels.into_iter().collect(),
        target: TargetSettings::default(),
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

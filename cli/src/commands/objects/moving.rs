//! `cairn mv`: a renaming within CairnFS; else a copy, and the source goes when the copy is stable.

use super::copy::{rules, transfer};
use super::output::Output;
use super::tally::Tally;
use super::with_store;
use crate::object_arguments::Move;
use anyhow::Result;
use cairn_objects::store::Follow;
use cairn_objects::transfer::{Comparison, Routing, route};
use cairn_objects::{Failure, Place, RemotePath, Store};
use std::process::ExitCode;

pub fn mv(options: Move) -> Result<ExitCode> {
    with_store(options.transferring.access.clone(), move |store, tally| async move {
        let Some((target, sources)) = options.places.split_last() else { return Ok(()) };
        let remote: Vec<&RemotePath> = sources.iter().filter_map(remote_path).collect();
        match remote_path(target) {
            Some(target) if remote.len() == sources.len() && options.transferring.filter.0.is_empty() => {
                rename_all(&store, &tally, &remote, target, &options).await
            }
            _ => {
                let rules = rules(&options.transferring, Comparison::Never, false, true);
                let routes = route(&store, &Routing { sources, target, recursive: options.recursive, follow: false, rules }).await;
                transfer(&store, &tally, routes, &options.transferring, true, true).await
            }
        }
    })
}

fn remote_path(place: &Place) -> Option<&RemotePath> {
    match place {
        Place::Remote(path) => Some(path),
        Place::Local(_) | Place::Stream => None,
    }
}

async fn rename_all(store: &Store, tally: &Tally, sources: &[&RemotePath], target: &RemotePath, options: &Move) -> Result<()> {
    if let Some(bucket) = sources.iter().find(|source| source.is_bucket() || source.is_root()) {
        tally.failed(&Failure::said(bucket, "a bucket can't be moved: move what is in it"));
        return Ok(());
    }
    let Some(present) = tally.take(store.find_if_any(target, Follow::Last).await) else { return Ok(()) };
    let into = target.is_folder || sources.len() > 1 || present.is_some_and(|found| found.is_directory());
    let mut output = Output::new(&store.runtime);
    for source in sources {
        let target = match source.name() {
            Some(name) if into => target.child(name),
            _ => target.clone(),
        };
        if let Some(did) = tally.take(rename(store, source, &target, options).await) {
            let line = if options.transferring.quiet { String::new() } else { format!("{did}: {source} -> {target}\n") };
            output.text(&line).await?;
        }
    }
    tally.take(store.make_stable().await);
    output.flush().await
}

async fn rename(store: &Store, source: &RemotePath, target: &RemotePath, options: &Move) -> Result<&'static str, Failure> {
    let found = store.find(source, Follow::AllButLast).await?;
    if options.transferring.no_clobber && store.find_if_any(target, Follow::AllButLast).await?.is_some() {
        return Ok("kept");
    }
    if options.transferring.dry_run {
        return Ok("would be moved");
    }
    store.rename(&found, target, !options.transferring.no_clobber).await?;
    Ok("moved")
}

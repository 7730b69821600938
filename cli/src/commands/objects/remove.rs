//! `cairn rm` and `cairn rb`.

use super::confirm::confirm;
use super::output::Output;
use super::tally::Tally;
use super::with_store;
use crate::object_arguments::{Remove, RemoveBucket};
use anyhow::Result;
use cairn_objects::filter::Filter;
use cairn_objects::store::{Follow, Found};
use cairn_objects::walk::{Order, Walk};
use cairn_objects::{Failure, RemotePath, Store, size};
use parking_lot::Mutex;
use std::process::ExitCode;

/// So many names are shown before the question.
const PREVIEW_NAMES: u64 = 10;

pub fn rm(options: Remove) -> Result<ExitCode> {
    with_store(options.access.clone(), move |store, tally| async move {
        for path in &options.paths {
            remove(&store, &tally, path, &options).await?;
        }
        tally.take(store.make_stable().await);
        Ok(())
    })
}

pub fn rb(options: RemoveBucket) -> Result<ExitCode> {
    with_store(options.access.clone(), move |store, tally| async move {
        for bucket in &options.buckets {
            remove_bucket(&store, &tally, bucket, &options).await?;
        }
        tally.take(store.make_stable().await);
        Ok(())
    })
}

async fn remove(store: &Store, tally: &Tally, path: &RemotePath, options: &Remove) -> Result<()> {
    let Some(found) = tally.take(removable(store, path, options.recursive).await) else { return Ok(()) };
    if options.dry_run {
        return tell_what_would_go(store, tally, &found, &options.filter.0).await;
    }
    if !found.is_directory() {
        let removed = tally.take(store.remove_file(&found).await);
        if removed.is_some() && !options.quiet {
            println!("removed: {path}");
        }
        return Ok(());
    }
    let doomed = if options.yes { String::new() } else { preview(store, tally, &found, &options.filter.0).await };
    if !confirm(&store.runtime, tally, &doomed, options.yes).await? {
        return Ok(());
    }
    remove_all(store, tally, &found, &options.filter.0, options.quiet).await
}

async fn removable(store: &Store, path: &RemotePath, recursive: bool) -> Result<Found, Failure> {
    if path.is_root() {
        return Err(Failure::said(path, "it is everything there is: remove buckets one by one, with `cairn rb --force`"));
    }
    let found = store.find(path, Follow::AllButLast).await?;
    match (found.is_directory(), recursive) {
        (true, _) if path.is_bucket() && !recursive => Err(Failure::said(path, "it is a bucket: remove it with `cairn rb`")),
        (true, false) => Err(Failure::said(path, "it is a directory: pass -r to remove it with everything in it")),
        _ => Ok(found),
    }
}

async fn remove_bucket(store: &Store, tally: &Tally, bucket: &RemotePath, options: &RemoveBucket) -> Result<()> {
    let found = store.find(bucket, Follow::AllButLast).await;
    let Some(found) = tally.take(found) else { return Ok(()) };
    if !found.is_directory() {
        tally.failed(&Failure::said(bucket, "it is a file at the top of the file system, not a bucket: use `cairn rm`"));
        return Ok(());
    }
    if found.attributes.size == 0 {
        tally.take(store.remove_empty_directory(&found).await);
        return Ok(());
    }
    if !options.force {
        tally.failed(&Failure::said(bucket, "the bucket is not empty: pass --force to remove it with everything in it"));
        return Ok(());
    }
    let doomed = if options.yes { String::new() } else { preview(store, tally, &found, &Filter::default()).await };
    if confirm(&store.runtime, tally, &doomed, options.yes).await? {
        remove_all(store, tally, &found, &Filter::default(), true).await?;
    }
    Ok(())
}

async fn remove_all(store: &Store, tally: &Tally, found: &Found, filter: &Filter, quiet: bool) -> Result<()> {
    let removed = Mutex::new((0u64, String::new()));
    let told = |outcome: Result<&RemotePath, Failure>| match outcome {
        Ok(path) => {
            let mut removed = removed.lock();
            removed.0 += 1;
            if !quiet {
                removed.1.push_str(&format!("removed: {path}\n"));
                if removed.1.len() > 16 << 10 {
                    print!("{}", std::mem::take(&mut removed.1));
                }
            }
        }
        Err(failure) => tally.failed(&failure),
    };
    store.remove_tree(found, filter, &told).await;
    let (count, lines) = removed.into_inner();
    let mut output = Output::new(&store.runtime);
    output.text(&lines).await?;
    if !quiet {
        output.text(&format!("{count} removed\n")).await?;
    }
    output.flush().await
}

/// Names what a recursive removal would take, as a sentence.
async fn preview(store: &Store, tally: &Tally, found: &Found, filter: &Filter) -> String {
    let (mut files, mut bytes, mut directories) = (0u64, 0u64, 0u64);
    let mut walk = Walk::below(store, found, Order::ByNameIfFew, usize::MAX);
    while let Some(next) = walk.next().await {
        let Some(visited) = tally.take(next) else { continue };
        if visited.is_directory() {
            directories += 1;
        } else if filter.takes(&visited.path.names()[found.path.names().len()..].join(&b'/')) {
            files += 1;
            bytes += visited.attributes.size;
            if files <= PREVIEW_NAMES {
                tally.warn(&format!("would be removed: {}", visited.path));
            }
        }
    }
    if files > PREVIEW_NAMES {
        tally.warn(&format!("... and {} more", files - PREVIEW_NAMES));
    }
    format!("{files} files ({}) and {directories} directories in {} would be removed", size::human(bytes), found.path)
}

async fn tell_what_would_go(store: &Store, tally: &Tally, found: &Found, filter: &Filter) -> Result<()> {
    let mut output = Output::new(&store.runtime);
    if found.is_directory() {
        let mut walk = Walk::below(store, found, Order::ByName, usize::MAX);
        while let Some(next) = walk.next().await {
            let Some(visited) = tally.take(next) else { continue };
            if !visited.is_directory() && filter.takes(&visited.path.names()[found.path.names().len()..].join(&b'/')) {
                output.text(&format!("would remove: {}\n", visited.path)).await?;
            }
        }
    }
    if filter.is_empty() {
        output.text(&format!("would remove: {}\n", found.path)).await?;
    }
    output.flush().await
}

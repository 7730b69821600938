//! `cairn mb`, `cairn touch` and `cairn ln`.

use super::with_store;
use crate::object_arguments::{Link, MakeBucket, Touch};
use anyhow::{Context, Result};
use cairn_objects::RemotePath;
use std::process::ExitCode;

pub fn mb(options: MakeBucket) -> Result<ExitCode> {
    with_store(options.access.clone(), move |store, tally| async move {
        for bucket in &options.buckets {
            tally.take(store.make_bucket(bucket, options.ignore_existing).await);
        }
        tally.take(store.make_stable().await);
        Ok(())
    })
}

pub fn touch(options: Touch) -> Result<ExitCode> {
    with_store(options.access.clone(), move |store, tally| async move {
        for path in &options.paths {
            tally.take(store.touch(path, !options.no_create).await);
        }
        tally.take(store.make_stable().await);
        Ok(())
    })
}

pub fn ln(options: Link) -> Result<ExitCode> {
    let existing =
        if options.symbolic { None } else { Some(RemotePath::parse(&options.target).context("the file that gets a further name")?) };
    with_store(options.access.clone(), move |store, tally| async move {
        tally.take(match &existing {
            Some(existing) => store.make_hard_link(existing, &options.path, options.force).await,
            None => store.make_symlink(&options.target_bytes(), &options.path, options.force).await,
        });
        tally.take(store.make_stable().await);
        Ok(())
    })
}

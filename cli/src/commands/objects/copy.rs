//! `cairn cp` and `cairn sync`.

use super::confirm::confirm;
use super::output::Output;
use super::progress::{Manner, Progress};
use super::read;
use super::tally::Tally;
use super::with_store;
use crate::object_arguments::{Copy, Sync, Transferring};
use crate::signals::asked_to_stop;
use anyhow::Result;
use cairn_objects::transfer::{Comparison, Engine, Options, Route, Routing, Rules, Spot, Stop, route};
use cairn_objects::{Failure, Place, Store};
use std::process::ExitCode;
use std::sync::Arc;

/// So many names are shown before the question.
const PREVIEW_NAMES: usize = 10;

pub fn cp(options: Copy) -> Result<ExitCode> {
    with_store(options.transferring.access.clone(), move |store, tally| async move {
        let Some((target, sources)) = options.places.split_last() else { return Ok(()) };
        if let (Place::Stream, [Place::Remote(path)]) = (target, sources) {
            return read::print_file(&store, &tally, path).await;
        }
        let rules = rules(&options.transferring, Comparison::Never, false, options.preserve);
        let routes = route(&store, &Routing { sources, target, recursive: options.recursive, follow: true, rules }).await;
        transfer(&store, &tally, routes, &options.transferring, options.preserve, false).await
    })
}

pub fn sync(options: Sync) -> Result<ExitCode> {
    with_store(options.transferring.access.clone(), move |store, tally| async move { make_alike(&store, &tally, &options).await })
}

async fn make_alike(store: &Store, tally: &Tally, options: &Sync) -> Result<()> {
    let comparison = match (options.size_only, options.checksum) {
        (true, _) => Comparison::SizeOnly,
        (_, true) => Comparison::Checksum,
        _ => Comparison::SizeAndTime,
    };
    let preserve = !options.no_preserve;
    let rules = rules(&options.transferring, comparison, options.delete, preserve);
    let sources = [options.source.clone()];
    let mut routes = route(store, &Routing { sources: &sources, target: &options.target, recursive: true, follow: true, rules }).await;
    if matches!(routes.as_slice(), [Ok(Route::File(_))]) {
        routes = vec![Err(Failure::said(&options.source, "it is not a directory: copy a single file with `cairn cp`"))];
    }
    if options.delete && !options.yes && !options.transferring.dry_run {
        let doomed = surplus(store, tally, &routes, &options.transferring, preserve).await;
        if !doomed.is_empty() {
            doomed.iter().take(PREVIEW_NAMES).for_each(|spot| tally.warn(&format!("would be removed: {spot}")));
            let what = format!(
                "{} files and directories in {} that {} does not have would be removed",
                doomed.len(),
                options.target,
                options.source
            );
            if !confirm(&store.runtime, tally, &what, false).await? {
                return Ok(());
            }
        }
    }
    transfer(store, tally, routes, &options.transferring, preserve, false).await
}

/// What `--delete` would remove.
async fn surplus(
    store: &Store,
    tally: &Tally,
    routes: &[Result<Route, Failure>],
    transferring: &Transferring,
    preserve: bool,
) -> Vec<Spot> {
    // Whatever fails now fails again, and is told then.
    let silent = Arc::new(Progress::new(&store.runtime, Manner::Quiet, true, &tally.muted()));
    let options = Options { dry_run: true, ..engine_options(transferring, preserve, false) };
    Engine::new(store, options, Stop::default(), silent).removals(routes).await
}

pub fn rules(transferring: &Transferring, comparison: Comparison, delete: bool, links: bool) -> Rules {
    Rules { filter: transferring.filter.0.clone(), comparison, delete, keep_existing: transferring.no_clobber, links }
}

fn engine_options(transferring: &Transferring, preserve: bool, moves: bool) -> Options {
    Options {
        jobs: transferring.jobs.into(),
        preserve,
        replace: !transferring.no_clobber,
        dry_run: transferring.dry_run,
        moves,
        bytes_per_second: transferring.bwlimit,
    }
}

/// Does it, shows it, and lets the user stop it.
pub async fn transfer(
    store: &Store,
    tally: &Tally,
    routes: Vec<Result<Route, Failure>>,
    transferring: &Transferring,
    preserve: bool,
    moves: bool,
) -> Result<()> {
    let manner = Manner::new(transferring.quiet, transferring.json);
    let progress = Arc::new(Progress::new(&store.runtime, manner, transferring.dry_run, tally));
    let stop = Stop::default();
    let engine = Engine::new(store, engine_options(transferring, preserve, moves), stop.clone(), Arc::clone(&progress) as _);
    let mut output = Output::new(&store.runtime);
    {
        let mut work = std::pin::pin!(engine.run(routes));
        let mut printing = std::pin::pin!(progress.print(&mut output));
        tokio::select! {
            biased;
            () = &mut work => {}
            printed = &mut printing => printed?,
            () = asked_to_stop() => {
                stop.set();
                progress.note("stopping: what is under way comes to a clean end; press Ctrl-C again to end at once");
                tokio::select! {
                    biased;
                    () = &mut work => {}
                    printed = &mut printing => printed?,
                    () = asked_to_stop() => std::process::exit(1),
                }
                tally.end_with(1);
            }
        }
    }
    progress.finish(&mut output, &engine.sums.get()).await?;
    if stop.is_set() {
        tally.warn("interrupted: not everything was copied; the same command goes on from here");
    }
    Ok(())
}

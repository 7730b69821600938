//! `cairn fsck`: is everything there, and does everything agree?
//!
//! | part | what is looked at | who looks |
//! |---|---|---|
//! | [`tables`] | names, links, attributes, extents, references, slots: every row of the master's tables | the master, of a snapshot |
//! | [`shards`] | every chunk has its shards where the map says; with `--deep` they are read and hashed | the chunkservers, asked from here, page by page |
//!
//! Memory is that of a page of chunks and of the problems that are listed ([`report`]), however many files there are.

mod progress;
mod report;
mod shards;
mod tables;

use self::progress::Progress;
use self::report::Report;
use crate::arguments::Fsck;
use crate::commands::link::Link;
use crate::commands::token::operator;
use anyhow::Result;
use cairn_runtime::Runtime;
use std::process::ExitCode;

/// Something is wrong and was not mended.
const PROBLEMS_LEFT: u8 = 1;
/// The check could not be done at all; clap uses the same for a wrong command line.
pub const NOT_CHECKED: u8 = 2;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    deep: bool,
    repair: bool,
}

pub fn run(options: Fsck) -> Result<ExitCode> {
    super::in_role("fsck", move |runtime| async move {
        let is_json = options.json;
        let report = check(&runtime, options).await?;
        if is_json {
            super::print(&(serde_json::to_string_pretty(&report.json())? + "\n"))?;
        } else {
            super::print(&report.summary())?;
        }
        Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(PROBLEMS_LEFT) })
    })
}

async fn check(runtime: &Runtime, options: Fsck) -> Result<Report> {
    let member = operator(runtime, &options.access, options.data.as_deref()).await?;
    let wanted = Wanted { deep: options.deep, repair: options.repair };
    let mut link = Link::new(runtime, member)?;
    let mut report = Report::new(wanted, !options.json);
    let mut progress = Progress::new(runtime);
    tables::check(&mut link, wanted, &mut report, &mut progress).await?;
    shards::check(&mut link, wanted, &mut report, &mut progress).await?;
    tables::name_lost(&mut link, &mut report, &mut progress).await?;
    progress.clear();
    link.close();
    Ok(report)
}

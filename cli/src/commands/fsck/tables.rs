//! The master's part: a check of its tables is begun there, and followed until it ends.

use super::Wanted;
use super::progress::Progress;
use super::report::Report;
use crate::commands::link::Link;
use anyhow::{Result, bail};
use cairn_common::ids::ChunkId;
use cairn_common::wire::check::{CHUNKS_ASKED_MAX, CheckEnd, CheckReport, CheckWork, Finding};
use cairn_common::wire::master::{MasterReply, MasterRequest};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often it is asked how far the check is.
const POLL: Duration = Duration::from_millis(100);

pub async fn check(link: &mut Link, wanted: Wanted, report: &mut Report, progress: &mut Progress) -> Result<()> {
    let (mut rows, mut listed) = (0, 0);
    let work = CheckWork::Tables { repair: wanted.repair };
    let last = follow(link, work, progress, |finding| {
        listed += 1;
        report.add_finding(finding);
    });
    let last = last.await?;
    rows += last.rows_done;
    report.counts.rows = rows;
    report.add_unlisted(last.found.saturating_sub(listed));
    report.incomplete = match last.end {
        Some(CheckEnd::Failed(reason)) => bail!("the master could not check its tables: {reason}"),
        Some(CheckEnd::TooMuch) => Some("so much is wrong in the master's tables that the check stopped".to_owned()),
        Some(CheckEnd::Complete) | None => None,
    };
    Ok(())
}

/// Begins work and follows it to its end; the last report.
async fn follow(link: &mut Link, work: CheckWork, progress: &mut Progress, mut take: impl FnMut(Finding)) -> Result<CheckReport> {
    let check = match link.ask(&MasterRequest::BeginCheck { work }).await? {
        MasterReply::CheckBegun { check } => check,
        other => bail!("the master answered something else to the begin of a check: {other:?}"),
    };
    let mut from = 0;
    loop {
        let mut state = match link.ask(&MasterRequest::FollowCheck { check, from }).await? {
            MasterReply::Check(state) => state,
            other => bail!("the master answered something else about its check: {other:?}"),
        };
        let findings = std::mem::take(&mut state.findings);
        from += findings.len() as u64;
        let has_news = !findings.is_empty();
        if has_news {
            progress.clear();
        }
        findings.into_iter().for_each(&mut take);
        progress.show(&format!("master: {}", state.stage), state.rows_done, state.rows);
        if state.end.is_some() {
            return Ok(state);
        }
        if !has_news {
            link.runtime.sleep(POLL).await;
        }
    }
}

/// Tells which files the lost chunks are in. One that no file refers to (any more) is no loss.
pub async fn name_lost(link: &mut Link, report: &mut Report, progress: &mut Progress) -> Result<()> {
    let lost: Vec<ChunkId> = report.lost().collect();
    let mut files: BTreeMap<ChunkId, Vec<String>> = BTreeMap::new();
    for chunks in lost.chunks(CHUNKS_ASKED_MAX) {
        let take = |finding: Finding| {
            let Some(chunk) = finding.chunk else { return };
            let files = files.entry(chunk).or_default();
            files.extend(finding.path.map(|path| String::from_utf8_lossy(&path).into_owned()));
        };
        follow(link, CheckWork::Users { chunks: chunks.to_vec() }, progress, take).await?;
    }
    progress.clear();
    report.tell_lost(|chunk| files.remove(&chunk));
    Ok(())
}

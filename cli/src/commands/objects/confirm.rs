//! Asking before something is destroyed. Who can't be asked must have said `--yes`.

use super::USAGE;
use super::tally::Tally;
use crate::commands::ask_first::ask;
use anyhow::Result;
use cairn_runtime::Runtime;
use std::io::IsTerminal;

/// Whether to go on. `what` is the whole of it, for example `3 files (17 B) in cairn://b/x would be removed`.
pub async fn confirm(runtime: &Runtime, tally: &Tally, what: &str, yes: bool) -> Result<bool> {
    if yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        tally.warn(&format!("{what}: nothing was done; pass --yes to do it"));
        tally.end_with(USAGE);
        return Ok(false);
    }
    let question = format!("{what}. Go on?");
    let is_yes = runtime.blocking(move || ask(&question)).await?;
    if !is_yes {
        tally.warn("nothing was done");
        tally.end_with(1);
    }
    Ok(is_yes)
}

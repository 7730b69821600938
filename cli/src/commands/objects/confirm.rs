//! Asking before something is destroyed. Who can't be asked must have said `--yes`.

use super::USAGE;
use super::tally::Tally;
use anyhow::{Context, Result};
use cairn_runtime::Runtime;
use std::io::{BufRead, IsTerminal, Write};

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
    let question = format!("{what}. Go on? [y/N] ");
    let asked = runtime.blocking(move || {
        let mut stderr = std::io::stderr();
        stderr.write_all(question.as_bytes())?;
        stderr.flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    });
    let answer = asked.await.context("cannot ask on the terminal")?;
    let is_yes = matches!(answer.trim().to_lowercase().as_str(), "y" | "yes");
    if !is_yes {
        tally.warn("nothing was done");
        tally.end_with(1);
    }
    Ok(is_yes)
}

//! Asking before something is done that can't be undone.

use anyhow::{Context, Result, bail};
use std::io::{IsTerminal, Write};

/// Whether to go on: yes if `--yes` was given; else whoever sits at the terminal is shown `preview` and asked. Without a terminal it is an error,
/// which says the same.
pub fn go_on(preview: &str, is_insisted: bool) -> Result<bool> {
    if is_insisted {
        return Ok(true);
    }
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        bail!("{preview}. Insist with --yes");
    }
    let goes_on = ask(&format!("{preview}.\nGo on?"))?;
    if !goes_on {
        eprintln!("Nothing was changed.");
    }
    Ok(goes_on)
}

/// Asks on the terminal, and waits for the answer; anything but yes is no.
pub fn ask(question: &str) -> Result<bool> {
    eprint!("{question} [y/N] ");
    std::io::stderr().flush().context("cannot ask on the terminal")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

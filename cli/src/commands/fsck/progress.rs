//! One line on the terminal that says how far the check is; nothing where nobody watches.

use cairn_runtime::Runtime;
use cairn_runtime::clock::Moment;
use std::io::{IsTerminal, Write};
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(200);
const BAR_WIDTH: usize = 30;

/// See the module.
pub struct Progress {
    runtime: Runtime,
    is_shown: bool,
    drawn: Option<Moment>,
}

impl Progress {
    pub fn new(runtime: &Runtime) -> Self {
        Self { runtime: runtime.clone(), is_shown: std::io::stderr().is_terminal(), drawn: None }
    }

    /// `part` of `whole` is done.
    pub fn show(&mut self, what: &str, part: u64, whole: u64) {
        let now = self.runtime.now();
        if !self.is_shown || self.drawn.is_some_and(|drawn| now.since(drawn) < PAUSE) {
            return;
        }
        self.drawn = Some(now);
        self.draw(&format!("\r\x1b[K{} {what}", bar(part, whole)));
    }

    /// Takes the line away, before something else is printed.
    pub fn clear(&mut self) {
        if self.drawn.take().is_some() {
            self.draw("\r\x1b[K");
        }
    }

    fn draw(&self, text: &str) {
        let mut terminal = std::io::stderr();
        // A terminal that is gone misses nothing.
        let _ = terminal.write_all(text.as_bytes()).and_then(|()| terminal.flush());
    }
}

fn bar(part: u64, whole: u64) -> String {
    let permille = (u128::from(part) * 1000).checked_div(whole.into()).unwrap_or(0).min(1000) as usize;
    let filled = permille * BAR_WIDTH / 1000;
    format!("[{}{}] {:>3} %", "=".repeat(filled), " ".repeat(BAR_WIDTH - filled), permille / 10)
}

#[cfg(test)]
mod tests {
    use super::bar;

    #[test]
    fn a_bar_fills() {
        assert_eq!(bar(0, 0), format!("[{}]   0 %", " ".repeat(30)));
        assert_eq!(bar(1, 2), format!("[{}{}]  50 %", "=".repeat(15), " ".repeat(15)));
        assert_eq!(bar(9, 2), format!("[{}] 100 %", "=".repeat(30)));
    }
}

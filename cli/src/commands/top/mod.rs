//! `cairn top`: what the cluster does right now.
//!
//! | part | noun |
//! |---|---|
//! | [`sample`] | what the master was asked, and what two looks come to (pure) |
//! | [`frame`] | how it is shown (pure) |

mod frame;
mod sample;

use self::sample::{Sample, View};
use super::link::Link;
use crate::arguments::Top;
use anyhow::{Context, Result, bail};
use cairn_common::wire::master::{MasterReply, MasterRequest};
use cairn_runtime::Runtime;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use std::io::IsTerminal;
use std::pin::pin;
use std::time::Duration;

/// How long `--once` waits at most until everybody has told of their load twice.
const ONCE_LIMIT: Duration = Duration::from_secs(6);
const ONCE_INTERVAL: Duration = Duration::from_millis(500);
/// A master that is silent for longer is said to be.
const SILENCE: Duration = Duration::from_secs(2);
/// How long a key may wait.
const KEY_INTERVAL: Duration = Duration::from_millis(100);

pub fn run(options: Top) -> Result<()> {
    if !options.once && !std::io::stdout().is_terminal() {
        bail!("standard output is not a terminal: pass --once to print one picture");
    }
    super::in_role("top", move |runtime| async move {
        let mut link = Link::new(&runtime, options.operator.membership(&runtime).await?)?;
        let mut view = View::new(options.once);
        view.take(look(&mut link).await?);
        let outcome = if options.once {
            once(&runtime, &mut link, view, options.width).await
        } else {
            let mut terminal = ratatui::try_init().context("the terminal can't be used")?;
            let outcome = follow(&runtime, &mut link, view, &mut terminal, Duration::from_secs(options.interval)).await;
            ratatui::restore();
            outcome
        };
        link.close();
        outcome
    })
}

async fn look(link: &mut Link) -> Result<Sample> {
    let MasterReply::Status(status) = link.ask(&MasterRequest::Status).await? else {
        bail!("the master answered something else to a request for its status");
    };
    let MasterReply::Load(loads) = link.ask(&MasterRequest::Load).await? else {
        bail!("the master answered something else to a request for the load");
    };
    Ok(Sample { status: *status, loads: *loads })
}

async fn once(runtime: &Runtime, link: &mut Link, mut view: View, width: u16) -> Result<()> {
    let until = runtime.now().plus(ONCE_LIMIT);
    while !view.is_complete() && runtime.now() < until {
        runtime.sleep(ONCE_INTERVAL).await;
        view.take(look(link).await?);
    }
    super::print(&frame::text(&view, width)?)
}

/// Until a key ends it. A master that is away is waited for.
async fn follow(runtime: &Runtime, link: &mut Link, mut view: View, terminal: &mut DefaultTerminal, interval: Duration) -> Result<()> {
    // One at a time, and never given up: it would take away a key that nobody sees.
    let mut key = runtime.blocking(ends).boxed();
    loop {
        terminal.draw(|frame| frame::draw(frame, &view))?;
        let asked = runtime.now().plus(interval);
        let mut next = pin!(async {
            runtime.sleep(interval).await;
            look(link).await
        });
        let found = loop {
            match select(&mut key, &mut next).await {
                Either::Left((is_end, _)) => {
                    if is_end? {
                        return Ok(());
                    }
                    key = runtime.blocking(ends).boxed();
                }
                Either::Right((found, _)) => break found,
            }
            let silent = runtime.now().since(asked).as_secs();
            if silent >= SILENCE.as_secs() {
                view.trouble = Some(format!("the master has not answered for {silent} s: what follows is older"));
                terminal.draw(|frame| frame::draw(frame, &view))?;
            }
        };
        match found {
            Ok(sample) => view.take(sample),
            Err(error) => view.trouble = Some(format!("{error:#}")),
        }
    }
}

/// Whether a key was pressed that ends the view.
fn ends() -> std::io::Result<bool> {
    if !event::poll(KEY_INTERVAL)? {
        return Ok(false);
    }
    let Event::Key(key) = event::read()? else { return Ok(false) };
    let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    Ok(key.kind == KeyEventKind::Press && (is_interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)))
}

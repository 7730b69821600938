//! The `cairn` binary: every role and every tool behind one command.

mod address;
mod arguments;
mod commands;
mod identity;
mod local_file;
mod logging;
mod object_arguments;
mod panics;
mod places;
mod signals;

use anyhow::Result;
use arguments::{Arguments, Command};
use clap::Parser;
use commands::objects;
use logging::Level;
use std::io::Write;
use std::process::ExitCode;

/// Small messages are most of what every role allocates, across threads; glibc's arenas grow and shrink by system calls under that load.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let failure = match arguments.command {
        Command::Fsck(_) => ExitCode::from(commands::fsck::NOT_CHECKED),
        _ => ExitCode::FAILURE,
    };
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            let sentence = sentence(&error);
            // Whoever reads standard error may be gone; a log that is a file keeps it.
            let _ = writeln!(std::io::stderr(), "cairn: {sentence}");
            failure
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    let level = match arguments.command {
        Command::Master(_) | Command::Chunkserver(_) | Command::Mount(_) => Level::Serving,
        Command::Cp(_) | Command::Mv(_) | Command::Sync(_) | Command::Cat(_) | Command::Head(_) | Command::Rm(_) => Level::Troubles,
        _ => Level::Warnings,
    };
    logging::start(level.with_verbosity(arguments.verbose), arguments.log.as_deref())?;
    let log = arguments.log;
    let done = |()| ExitCode::SUCCESS;
    let result = match arguments.command {
        Command::Master(options) => commands::master::run(options).map(done),
        Command::Chunkserver(options) => commands::chunkserver::run(options).map(done),
        Command::Mount(options) => commands::mount::run(options, log.as_deref()).map(done),
        Command::Umount(options) => commands::umount::run(options).map(done),
        Command::Up(options) => commands::up::run(options).map(done),
        Command::Status(options) => commands::status::run(options).map(done),
        Command::Fsck(options) => commands::fsck::run(options),
        Command::Token(options) => commands::token::run(options).map(done),
        Command::Cp(options) => objects::copy::cp(options),
        Command::Mv(options) => objects::moving::mv(options),
        Command::Sync(options) => objects::copy::sync(options),
        Command::Ls(options) => objects::list::ls(options),
        Command::Stat(options) => objects::list::stat(options),
        Command::Cat(options) => objects::read::cat(options),
        Command::Head(options) => objects::read::head(options),
        Command::Find(options) => objects::search::find(options),
        Command::Tree(options) => objects::list::tree(options),
        Command::Du(options) => objects::usage::du(options),
        Command::Mb(options) => objects::names::mb(options),
        Command::Rb(options) => objects::remove::rb(options),
        Command::Rm(options) => objects::remove::rm(options),
        Command::Touch(options) => objects::names::touch(options),
        Command::Ln(options) => objects::names::ln(options),
    };
    if let Err(error) = &result
        && log.is_some()
    {
        tracing::error!("{}", sentence(error));
    }
    result
}

/// An error and its causes in one line. Some errors tell their cause themselves: nothing is said twice.
fn sentence(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if said.contains(&cause) {
            continue;
        }
        if !said.is_empty() {
            said.push_str(": ");
        }
        said.push_str(&cause);
    }
    said
}

#[cfg(test)]
mod tests {
    use super::sentence;
    use anyhow::Context;

    #[test]
    fn a_cause_is_told_once() {
        let broken = || std::io::Error::other("the pipe broke");
        let twice = Err::<(), _>(anyhow::anyhow!(broken())).context("cannot write: the pipe broke").context("no dump").unwrap_err();
        assert_eq!(sentence(&twice), "no dump: cannot write: the pipe broke");
        let once = Err::<(), _>(broken()).context("no dump").unwrap_err();
        assert_eq!(sentence(&once), "no dump: the pipe broke");
    }
}

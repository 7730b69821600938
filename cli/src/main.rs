//! The `cairn` binary: every role and every tool behind one command.

mod arguments;
mod commands;
mod identity;
mod logging;
mod panics;
mod places;
mod signals;

use arguments::{Arguments, Command};
use clap::Parser;
use std::process::ExitCode;

/// Small messages are most of what every role allocates, across threads; glibc's arenas grow and shrink by system calls under that load.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    logging::start(arguments.verbose);
    let result = match arguments.command {
        Command::Master(options) => commands::master::run(options),
        Command::Chunkserver(options) => commands::chunkserver::run(options),
        Command::Mount(options) => commands::mount::run(options),
        Command::Umount(options) => commands::umount::run(options),
        Command::Up(options) => commands::up::run(options),
        Command::Status(options) => commands::status::run(options),
        Command::Token(options) => commands::token::run(options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cairn: {error:#}");
            ExitCode::FAILURE
        }
    }
}

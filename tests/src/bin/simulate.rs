//! Runs worlds, and tells what broke in them.
//!
//! ```text
//! simulate --seed 17 [--trace | --events]     one world, with its story or with every event
//! simulate --seeds 0..300 [--jobs 2]          many
//! simulate --minutes 60 [--jobs 2] [--from N] as many as fit
//! ```

use cairn_tests::report::{Arguments, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => run(&arguments),
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::from(2)
        }
    }
}

//! Runs worlds, and tells what broke in them.
//!
//! ```text
//! simulate --seed 17 [--trace | --events]     one world, with its story or with every event
//! simulate --seeds 0..300 [--jobs 2]          many
//! simulate --minutes 60 [--jobs 2] [--from N] as many as fit
//! simulate --seeds 0..20 --crash-points       a loss of power at every operation of a disk
//! simulate --seeds 0..40 --deletion-race      content that is written again while its chunk is collected
//! simulate --list-bugs                        what CAIRN_PLANTED_BUG may be, if built with the feature planted-bugs
//! ```

use cairn_common::planted::Bug;
use cairn_tests::report::{Arguments, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("--list-bugs") {
        Bug::ALL.iter().for_each(|bug| println!("{}\t{}", bug.name(), bug.what().trim()));
        return ExitCode::SUCCESS;
    }
    match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => run(&arguments),
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::from(2)
        }
    }
}

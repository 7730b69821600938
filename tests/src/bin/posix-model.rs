//! Compares directories of this machine with the model of a file system (`cairn_tests::posix`), by random calls.
//!
//! ```text
//! posix-model --directory DIR [--directory DIR]... [--cases 200] [--steps 60] [--seed 1]
//! ```
//!
//! Several directories are the same one through several mounts. A difference is told with the shortest sequence of calls that gives it.

use cairn_tests::posix::kernel::Directories;
use cairn_tests::posix::trial::Trial;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: posix-model --directory DIR [--directory DIR]... [--cases N] [--steps N] [--seed N]";

struct Arguments {
    directories: Vec<PathBuf>,
    trial: Trial,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Ok(arguments) => run(arguments),
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::from(2)
        }
    }
}

fn run(Arguments { directories, trial }: Arguments) -> ExitCode {
    match trial.run(&Directories::new(directories)) {
        Ok(agreement) => {
            println!("{agreement}");
            ExitCode::SUCCESS
        }
        Err(difference) => {
            println!("{difference}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut parsed = Arguments { directories: Vec::new(), trial: Trial { cases: 200, steps: 60, seed: 1 } };
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value; {USAGE}"))?;
        match word.as_str() {
            "--directory" => parsed.directories.push(PathBuf::from(value)),
            "--cases" => parsed.trial.cases = number(&value)?,
            "--steps" => parsed.trial.steps = number(&value)?,
            "--seed" => parsed.trial.seed = number(&value)?,
            _ => return Err(format!("what is {word:?}? {USAGE}")),
        }
    }
    if parsed.directories.is_empty() || parsed.trial.steps == 0 { Err(USAGE.to_owned()) } else { Ok(parsed) }
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("{text:?} is no number; {USAGE}"))
}

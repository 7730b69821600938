//! Compares directories of this machine, or clients of simulated clusters, with the model of a file system (`cairn_tests::posix`), by random calls.
//!
//! ```text
//! posix-model --directory DIR [--directory DIR]... [--cases 200] [--steps 60] [--seed 1]
//! posix-model --clients N [--cases 200] [--steps 60] [--seed 1]
//! ```
//!
//! Several directories are the same one through several mounts. A difference is told with the shortest sequence of calls that was found to give it.

use cairn_tests::posix::kernel::Directories;
use cairn_tests::posix::library::Library;
use cairn_tests::posix::trial::Trial;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: posix-model (--directory DIR [--directory DIR]... | --clients N) [--cases N] [--steps N] [--seed N]";

struct Arguments {
    directories: Vec<PathBuf>,
    clients: usize,
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

fn run(Arguments { directories, clients, trial }: Arguments) -> ExitCode {
    let attempted = match clients {
        0 => trial.run(&Directories::new(directories)),
        _ => trial.run(&Library { clients, seed: trial.seed }),
    };
    match attempted {
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
    let mut parsed = Arguments { directories: Vec::new(), clients: 0, trial: Trial { cases: 200, steps: 60, seed: 1 } };
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value; {USAGE}"))?;
        match word.as_str() {
            "--directory" => parsed.directories.push(PathBuf::from(value)),
            "--clients" => parsed.clients = number(&value)?,
            "--cases" => parsed.trial.cases = number(&value)?,
            "--steps" => parsed.trial.steps = number(&value)?,
            "--seed" => parsed.trial.seed = number(&value)?,
            _ => return Err(format!("what is {word:?}? {USAGE}")),
        }
    }
    let has_one_subject = parsed.directories.is_empty() != (parsed.clients == 0);
    if has_one_subject && parsed.trial.steps > 0 { Ok(parsed) } else { Err(USAGE.to_owned()) }
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("{text:?} is no number; {USAGE}"))
}

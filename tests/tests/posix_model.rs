//! The model of a file system against Linux, and the client library against the model.

use cairn_common::wire::master::RenameMode;
use cairn_tests::posix::kernel::Directories;
use cairn_tests::posix::library::Library;
use cairn_tests::posix::operation::{Operation, Path, Step};
use cairn_tests::posix::outcome::{Failure, Outcome, Record};
use cairn_tests::posix::subject::Subject;
use cairn_tests::posix::tree::Tree;
use cairn_tests::posix::trial::{Agreement, Difference, Trial};
use std::path::PathBuf;

fn told(attempted: Result<Agreement, Difference>) -> Agreement {
    attempted.unwrap_or_else(|difference| panic!("{difference}"))
}

/// A local directory, on a file system with extended attributes of users, links of directories counted, and holes.
fn local_directory() -> tempfile::TempDir {
    let memory = PathBuf::from("/dev/shm");
    let place = if memory.is_dir() { memory } else { std::env::temp_dir() };
    tempfile::tempdir_in(place).expect("a temporary directory can be made")
}

#[test]
fn the_model_agrees_with_a_local_directory() {
    let directory = local_directory();
    let agreement = told(Trial { cases: 500, steps: 100, seed: 1 }.run(&Directories::new(vec![directory.path().to_owned()])));
    assert!(agreement.done * 3 > agreement.steps, "most calls are refused: {agreement}");
}

#[test]
fn the_library_agrees_with_the_model() {
    told(Trial { cases: 80, steps: 100, seed: 2 }.run(&Library { clients: 1, seed: 1 }));
}

#[test]
fn two_clients_agree_with_the_model() {
    told(Trial { cases: 80, steps: 100, seed: 3 }.run(&Library { clients: 2, seed: 2 }));
}

/// A file system with a mistake: it forgets to refuse that something is renamed over something that is there.
struct Careless;

impl Subject for Careless {
    fn doors(&self) -> usize {
        1
    }

    fn live(&self, steps: &[Step]) -> Result<Record, String> {
        let careless = |step: &Step| match &step.operation {
            Operation::Rename { from, to, mode: RenameMode::NoReplace } => {
                Step { door: 0, operation: Operation::Rename { from: from.clone(), to: to.clone(), mode: RenameMode::Replace } }
            }
            _ => step.clone(),
        };
        Ok(Tree::live(&steps.iter().map(careless).collect::<Vec<_>>()))
    }
}

#[test]
fn a_mistake_is_found_and_told_in_few_steps() {
    let found = Trial { cases: 200, steps: 60, seed: 4 }.run(&Careless).expect_err("it makes a mistake");
    assert!(found.steps.len() <= 3, "{found}");
    assert!(found.to_string().contains("RENAME_NOREPLACE"), "{found}");
}

#[test]
fn a_directory_does_not_move_below_itself() {
    let (above, below) = (Path("a".to_owned()), Path("a/b".to_owned()));
    let mut tree = Tree::default();
    let make = |path: &Path| Operation::MakeDirectory { path: path.clone(), mode: 0o755 };
    assert_eq!([tree.apply(&make(&above)), tree.apply(&make(&below))], [Outcome::Done, Outcome::Done]);
    let rename = |from: &Path, to: &Path| Operation::Rename { from: from.clone(), to: to.clone(), mode: RenameMode::Replace };
    assert_eq!(tree.apply(&rename(&above, &below)), Outcome::Failed(Failure::Invalid));
    assert_eq!(tree.apply(&rename(&below, &above)), Outcome::Failed(Failure::NotEmpty));
}

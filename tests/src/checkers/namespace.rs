//! "create, rename, unlink, ... return: atomic, ordered, seen by everyone; on stable storage within 10 ms, or at once after fsync of
//! the file or its directory" (design section 5). A call that did not return was done as a whole or not at all.

use crate::simulation::history::History;
use crate::simulation::inspection::Findings;

pub fn check(history: &History, findings: &Findings) -> Vec<String> {
    let mut broken = findings.unreadable.clone();
    for (place, found) in &findings.trees {
        let workplace = &history.workplaces[*place];
        let possible = workplace.names.possible();
        if !possible.iter().any(|tree| found.matches(tree)) {
            broken.push(format!("{} has {found:?}, and should have one of {possible:?}", workplace.name));
        }
    }
    broken
}

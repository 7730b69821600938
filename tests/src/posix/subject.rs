//! What can live through a sequence.

use super::operation::Step;
use super::outcome::Record;

/// A file system that is to be compared with the model. Each sequence begins with an empty directory.
pub trait Subject {
    /// Ways to the same tree: mounts, or clients. A step goes through one of them.
    fn doors(&self) -> usize;

    /// Does all steps, whatever they answer. Fails only if it could not do what belongs to no step.
    fn live(&self, steps: &[Step]) -> Result<Record, String>;
}

//! Removing what is surplus at a target, and what was moved away from a source.

use super::engine::Engine;
use super::spot::{Spot, traits_of};
use super::traits::Traits;
use super::watch::Deed;
use crate::failure::{At, Failure, Reason};
use crate::filter::Filter;
use crate::local;
use crate::place::RemotePath;
use crate::store::Follow;

impl Engine {
    /// Removes something at the target, a directory with everything in it.
    pub(super) async fn remove(&self, target: &Spot, traits: &Traits) {
        match target {
            Spot::Remote(path) => self.remove_remote(path, traits).await,
            Spot::Local(path) => {
                let (doomed, shown) = (path.clone(), path.display().to_string());
                let removed = self.store.runtime.blocking(move || local::remove(&doomed)).await.at(shown);
                self.removed(removed.map(|()| target.to_string()));
            }
            Spot::Stream => {}
        }
    }

    async fn remove_remote(&self, path: &RemotePath, traits: &Traits) {
        let found = match self.store.find(path, Follow::AllButLast).await {
            Ok(found) => found,
            Err(failure) => return self.removed(Err(failure)),
        };
        if traits.is_directory() {
            let told = |outcome: Result<&RemotePath, Failure>| self.removed(outcome.map(ToString::to_string));
            self.store.remove_tree(&found, &Filter::default(), &told).await;
        } else {
            self.removed(self.store.remove_file(&found).await.map(|()| path.to_string()));
        }
    }

    fn removed(&self, outcome: Result<String, Failure>) {
        match outcome {
            Ok(target) => {
                self.sums.deed(Deed::Removed);
                self.watch.done(Deed::Removed, "", &target);
            }
            Err(failure) if failure.reason.is_not_found() => {}
            Err(failure) => self.failed(failure),
        }
    }

    /// Removes a file that was copied, if it is still the one.
    pub(super) async fn remove_source(&self, source: &Spot, copied: &Traits) -> Result<(), Failure> {
        let now = traits_of(&self.store, source, false).await?;
        if now.identity != copied.identity || (now.size, now.mtime) != (copied.size, copied.mtime) {
            return Err(Failure::new(source, Reason::Changed));
        }
        match source {
            Spot::Remote(path) => {
                let found = self.store.find(path, Follow::AllButLast).await?;
                self.store.remove_file(&found).await
            }
            Spot::Local(path) => {
                let (doomed, shown) = (path.clone(), path.display().to_string());
                self.store.runtime.blocking(move || local::remove(&doomed)).await.at(shown)
            }
            Spot::Stream => Ok(()),
        }
    }

    /// Removes a directory whose content was moved. Something may be left in it: then it stays.
    pub(super) async fn remove_empty_source(&self, source: &Spot) {
        match source {
            Spot::Remote(path) => {
                if let Ok(found) = self.store.find(path, Follow::AllButLast).await {
                    let _ = self.store.remove_empty_directory(&found).await;
                }
            }
            Spot::Local(path) => {
                let doomed = path.clone();
                let _ = self.store.runtime.blocking(move || local::remove_empty_directory(&doomed)).await;
            }
            Spot::Stream => {}
        }
    }
}

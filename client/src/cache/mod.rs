//! What the client remembers of the namespace, in bounded memory, for as long as it holds the leases which say that it is still true.

mod book;
mod listings;
mod metadata;
mod versions;

pub use book::{LeaseBook, Leased};
pub use listings::Listings;
pub use metadata::{Change, MetadataCache, Reading, Telling, Writing};
pub use versions::KnownVersions;

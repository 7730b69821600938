//! What the client remembers of the namespace, for a short time and in bounded memory.
//!
//! There are no leases yet: what is remembered is believed for `Settings::attribute_ttl`, and other machines' changes are seen
//! after that. This client's own changes are seen at once.

mod bounded;
mod metadata;
mod versions;

pub use bounded::Bounded;
pub use metadata::{Change, MetadataCache, Reading};
pub use versions::KnownVersions;

//! What is right: a small model of files and names that knows what each promise is worth after which blow.

pub mod content;
pub mod directory;
pub mod file;

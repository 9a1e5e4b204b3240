//! The operating system's side: memory that processes share, and how they find, wake and miss each other.

pub mod checksum;

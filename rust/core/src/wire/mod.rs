//! The wire: fixed little-endian structures, the same on every transport and in the Python twin.

mod descriptor;
mod header;
mod seal;

pub use descriptor::{Collective, Descriptor};
pub use header::{Channel, Draft, HEADER_BYTES, Header, HeaderError, MAGIC, WIRE_VERSION, checksum};

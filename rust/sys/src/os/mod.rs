//! The operating system's side: memory that processes share, and how they find, wake and miss each other.

pub mod board;
pub mod checksum;
pub mod cores;
pub mod lists;
#[cfg(all(test, loom))]
mod models;
pub mod ring;
pub mod segment;
pub mod shared;
pub mod sites;
pub mod socket;
mod sync;
pub mod wake;

/// A random number, for what must differ from one process to the next.
pub fn random() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    assert_eq!(filled, bytes.len(), "the kernel gives so few bytes at once");
    Ok(u64::from_le_bytes(bytes))
}

/// The host's name.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The user whom this process acts for.
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

//! Why shared memory can't be had, in one line each with what to do.

use std::io;

use isobit_sys::os::segment::SegmentError;

use super::ShmConfig;
use crate::transport::TransportError;

/// The transport can't be had, and why.
pub(super) fn unavailable(reason: String) -> TransportError {
    TransportError::Unavailable { transport: "shm", reason }
}

/// What the kernel refused, in one line with what to do.
pub(super) fn system(step: &str, error: &io::Error, config: &ShmConfig) -> TransportError {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    let advice = match error.raw_os_error() {
        Some(EMFILE | ENFILE) => {
            format!(
                "; every rank of {} opens about {} files: raise the limit (ulimit -n)",
                config.world_size,
                2 * config.world_size + 8
            )
        }
        _ => match error.kind() {
            io::ErrorKind::OutOfMemory => "; free memory, run fewer ranks, or raise ulimit -v".to_owned(),
            io::ErrorKind::Unsupported => "; Linux 5.3 or newer is needed".to_owned(),
            io::ErrorKind::PermissionDenied => "; allow it in this container's seccomp profile".to_owned(),
            io::ErrorKind::FileTooLarge => {
                "; the limit of file sizes counts shared memory too: raise it (ulimit -f)".to_owned()
            }
            _ => String::new(),
        },
    };
    unavailable(format!("{step} failed: {error}{advice}"))
}

/// Why there is no shared memory.
pub(super) fn segment_error(error: SegmentError, config: &ShmConfig) -> TransportError {
    match error {
        SegmentError::System { step, source } => system(step, &source, config),
        SegmentError::Memory { needed, available } => unavailable(format!(
            "{} MiB of shared memory are needed for {} ranks and this host has {} MiB: run fewer ranks or use smaller rings",
            needed >> 20,
            config.world_size,
            available >> 20
        )),
        other => unavailable(other.to_string()),
    }
}

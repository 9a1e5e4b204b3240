//! The memory of another process, read where it lies: one copy instead of two.
//!
//! Linux lets a process of the same user do that (`process_vm_readv`), where nothing forbids it: a container's
//! seccomp filter, `kernel.yama.ptrace_scope`, a process that is not dumpable. Whoever wants it asks first.

use std::io;

use crate::WriteSpan;

/// The memory of one process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessMemory {
    process: libc::pid_t,
}

impl ProcessMemory {
    /// That of the process with this number here, if a process can have it.
    pub(crate) fn of(process: u64) -> Option<ProcessMemory> {
        libc::pid_t::try_from(process)
            .ok()
            .filter(|&process| process > 0)
            .map(|process| ProcessMemory { process })
    }

    /// Reads all bytes of `out` from `address` on. If that fails, some may have been read.
    pub(crate) fn read(self, address: u64, out: WriteSpan<'_>) -> io::Result<()> {
        let mut done = 0;
        while done < out.len() {
            let rest = out.slice(done, out.len() - done);
            let local = libc::iovec { iov_base: rest.as_ptr().cast(), iov_len: rest.len() };
            let from = usize::try_from(address).ok().and_then(|address| address.checked_add(done));
            let from = from.ok_or(io::ErrorKind::InvalidInput)?;
            let remote = libc::iovec { iov_base: from as *mut libc::c_void, iov_len: rest.len() };
            // SAFETY: the kernel writes to `local` alone, which is memory of this span; the remote address is a
            // number to this process, and one that the other can't read is an error.
            let read = unsafe { libc::process_vm_readv(self.process, &local, 1, &remote, 1, 0) };
            match read {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                1.. => done += read as usize,
                _ => return Err(io::Error::last_os_error()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_where_they_lie() {
        let memory = ProcessMemory::of(u64::from(std::process::id())).unwrap();
        let bytes: Vec<u8> = (0..100_000).map(|i| i as u8).collect();
        let mut copy = vec![0; 99_999];
        memory.read(bytes[1..].as_ptr() as u64, WriteSpan::from(&mut copy[..])).unwrap();
        assert_eq!(copy, bytes[1..]);
    }

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        let memory = ProcessMemory::of(u64::from(std::process::id())).unwrap();
        let mut copy = [0; 8];
        for address in [0, 64, u64::MAX - 4] {
            assert!(memory.read(address, WriteSpan::from(&mut copy[..])).is_err(), "{address}");
        }
    }

    #[test]
    fn no_process_has_the_numbers_0_and_those_beyond_the_largest() {
        for number in [0, 1 << 31, u64::MAX] {
            assert!(ProcessMemory::of(number).is_none(), "{number}");
        }
    }
}

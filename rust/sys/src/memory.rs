//! Owned staging memory: zeroed, aligned to a cache line, and read and written through spans.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::WriteSpan;

/// The alignment of staging memory: a cache line, and the widest vector register.
const ALIGN: usize = 64;

/// From how many bytes on a block is a mapping of its own, with large pages where the kernel has them: it
/// then prepares hundreds of times fewer of them, and only those that are touched.
const MAPPED_BYTES_MIN: usize = 4 << 20;

/// `len` zero bytes from the kernel.
fn map(len: usize) -> Option<NonNull<u8>> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory in use.
    let start = unsafe { mmap_anonymous(std::ptr::null_mut(), len, protection, MapFlags::PRIVATE) }.ok()?;
    // Only a wish: memory is memory without large pages.
    // SAFETY: the whole mapping, in which nothing can be seen to change.
    let _ = unsafe { madvise(start, len, Advice::LinuxHugepage) };
    NonNull::new(start.cast())
}

/// A block of memory that its owner lends as spans.
///
/// ```
/// use isobit_sys::Memory;
/// let memory = Memory::zeroed(3).unwrap();
/// assert_eq!(memory.span().to_vec(), [0, 0, 0]);
/// assert!(Memory::zeroed(usize::MAX / 2).is_none());
/// ```
#[derive(Debug)]
pub struct Memory {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a block has one owner and no thread-bound state; spans of it can't leave their thread and
// borrow it, so it can't move while any is alive.
unsafe impl Send for Memory {}

impl Memory {
    /// `len` zero bytes, or `None` if the system has not that much.
    pub fn zeroed(len: usize) -> Option<Memory> {
        if len == 0 {
            return Some(Memory { start: NonNull::dangling(), len });
        }
        if len >= MAPPED_BYTES_MIN {
            return Some(Memory { start: map(len)?, len });
        }
        let layout = Layout::from_size_align(len, ALIGN).ok()?;
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Memory { start, len })
    }

    /// All of it. Several spans of one block may live at a time, on one thread.
    pub fn span(&self) -> WriteSpan<'_> {
        // SAFETY: the block is live and owned while `self` is borrowed; `Memory` is not `Sync`, so
        // every span of it is on one thread; no slice of it is ever made.
        unsafe { WriteSpan::from_raw(self.start, self.len) }
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.len >= MAPPED_BYTES_MIN {
            // SAFETY: mapped in `zeroed` with this length, and unmapped only here.
            let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
            debug_assert!(unmapped.is_ok(), "a mapping of our own can be unmapped");
        } else if self.len > 0 {
            let layout = Layout::from_size_align(self.len, ALIGN).expect("it was allocated with this layout");
            // SAFETY: allocated in `zeroed` with the same layout and freed only here.
            unsafe { dealloc(self.start.as_ptr(), layout) };
        }
    }
}

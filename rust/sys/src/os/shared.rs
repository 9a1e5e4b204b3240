//! Memory that several threads or processes share: from the heap, for tests, or mapped from a file.
//!
//! Two kinds of bytes are in it, and no byte is of both: words, which are only ever reached as
//! atomics (`word`), and data, whose users take turns by a protocol over words (`reading`, `writing`).

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::any::Any;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use super::sync::AtomicU64;
use crate::{ReadSpan, WriteSpan};

/// What every piece of shared memory is aligned to: a cache line.
pub const ALIGN: usize = 64;

/// A page. Where pages are larger there are few of them.
const PAGE: usize = 4096;

/// A range of shared memory, which lives as long as any handle to it.
#[derive(Clone)]
pub struct SharedBytes {
    start: NonNull<u8>,
    len: usize,
    /// Only held, for its drop.
    _owner: Arc<dyn Any + Send + Sync>,
    #[cfg(all(test, loom))]
    model: Option<Arc<super::models::Model>>,
}

// SAFETY: the memory lives as long as `_owner`, wherever the handle goes; words are atomics, and
// reaching data is unsafe with its own promise.
unsafe impl Send for SharedBytes {}
// SAFETY: as above; a handle has no state of its own that changes.
unsafe impl Sync for SharedBytes {}

impl SharedBytes {
    /// `len` zero bytes of this process.
    pub fn zeroed(len: usize) -> SharedBytes {
        let layout = Layout::from_size_align(len.max(1), ALIGN).expect("a length that memory can have");
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        SharedBytes::new(start, len, Arc::new(Heap { start, layout }))
    }

    /// As `zeroed`, with words and data that loom follows; `word_at` are all words that will be used.
    #[cfg(all(test, loom))]
    pub(super) fn modelled(len: usize, word_at: impl IntoIterator<Item = usize>) -> SharedBytes {
        let mut memory = SharedBytes::zeroed(len);
        memory.model = Some(Arc::new(super::models::Model::new(memory.start, len, word_at)));
        memory
    }

    fn new(start: NonNull<u8>, len: usize, owner: Arc<dyn Any + Send + Sync>) -> SharedBytes {
        SharedBytes {
            start,
            len,
            _owner: owner,
            #[cfg(all(test, loom))]
            model: None,
        }
    }

    /// The first `len` bytes of a file, shared with everyone who maps them.
    ///
    /// The file must be a memfd that is sealed against shrinking, so that no access ever faults.
    pub(crate) fn map(file: BorrowedFd<'_>, len: usize) -> io::Result<SharedBytes> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory in use.
        let start = unsafe { mmap(std::ptr::null_mut(), len, protection, MapFlags::SHARED, file, 0) }?;
        let start = NonNull::new(start.cast()).expect("the kernel maps nothing at address 0");
        Ok(SharedBytes::new(start, len, Arc::new(Mapping { start, len })))
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes `start..start + len`, which begin at a cache line.
    pub fn slice(&self, start: usize, len: usize) -> SharedBytes {
        self.check(start, len, ALIGN);
        // SAFETY: the range lies inside this one.
        SharedBytes { start: unsafe { self.start.add(start) }, len, ..self.clone() }
    }

    /// Has the kernel make the whole pages among these bytes at once: whether it could. Else it makes each when it is
    /// first touched, which takes several times as long.
    pub(crate) fn populate(&self, start: usize, len: usize) -> bool {
        self.check(start, len, 1);
        if cfg!(any(miri, all(test, loom))) {
            return false;
        }
        let address = self.start.as_ptr() as usize + start;
        let (first, end) = (address.next_multiple_of(PAGE), (address + len) / PAGE * PAGE);
        let whole = self.start.as_ptr().wrapping_add(start + (first - address));
        // SAFETY: the pages lie inside, and none of their bytes is changed.
        end > first && unsafe { madvise(whole.cast(), end - first, Advice::LinuxPopulateWrite) }.is_ok()
    }

    /// The word at an offset. Its bytes are used as a word everywhere, or as data everywhere.
    #[inline]
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        self.check(offset, 8, 8);
        // SAFETY: checked.
        unsafe { self.word_inside(offset) }
    }

    /// The `LINES` cache lines at an offset, which have words only.
    #[inline]
    pub(crate) fn lines<const LINES: usize>(&self, start: usize) -> Lines<'_, LINES> {
        self.check(start, LINES * ALIGN, ALIGN);
        Lines { memory: self, start }
    }

    /// As `word`.
    ///
    /// # Safety
    /// The eight bytes at the offset, a multiple of 8, lie inside.
    #[inline]
    unsafe fn word_inside(&self, offset: usize) -> &AtomicU64 {
        #[cfg(all(test, loom))]
        return self.model.as_ref().expect("memory of a model").word(self.start.as_ptr() as usize + offset);
        // SAFETY: the eight bytes lie inside, live as long as `self`, are aligned because the
        // range is, and are only reached as an atomic, as this module's first lines say.
        #[cfg(not(all(test, loom)))]
        unsafe {
            AtomicU64::from_ptr(self.start.add(offset).cast().as_ptr())
        }
    }

    /// The data `start..start + len`, to read.
    ///
    /// # Safety
    /// While the span is used no other thread writes these bytes; they are data, not words. A process
    /// that shares the memory and breaks the protocol can spoil the bytes' values, and nothing else.
    #[inline]
    pub(crate) unsafe fn reading(&self, start: usize, len: usize) -> ReadSpan<'_> {
        self.check(start, len, 1);
        #[cfg(all(test, loom))]
        self.model.as_ref().expect("memory of a model").read(self.start.as_ptr() as usize + start, len);
        // SAFETY: the range lies inside; the rest is the caller's promise.
        unsafe { ReadSpan::from_raw(self.start.add(start), len) }
    }

    /// The data `start..start + len`, to write.
    ///
    /// # Safety
    /// As [`reading`](Self::reading), and no other thread reads these bytes meanwhile.
    #[inline]
    pub(crate) unsafe fn writing(&self, start: usize, len: usize) -> WriteSpan<'_> {
        self.check(start, len, 1);
        #[cfg(all(test, loom))]
        self.model.as_ref().expect("memory of a model").write(self.start.as_ptr() as usize + start, len);
        // SAFETY: the range lies inside; the rest is the caller's promise.
        unsafe { WriteSpan::from_raw(self.start.add(start), len) }
    }

    #[inline]
    fn check(&self, start: usize, len: usize, align: usize) {
        if start.saturating_add(len) > self.len || !start.is_multiple_of(align) {
            refuse(start, len, self.len);
        }
    }
}

/// Apart, so that a check needs no places in memory for what it would have to say.
#[cold]
fn refuse(start: usize, len: usize, of: usize) -> ! {
    panic!("{start}+{len} is no range of {of} bytes of shared memory");
}

/// The words of some cache lines.
#[derive(Clone, Copy)]
pub(crate) struct Lines<'a, const LINES: usize> {
    memory: &'a SharedBytes,
    start: usize,
}

impl<'a, const LINES: usize> Lines<'a, LINES> {
    /// The word at an offset in the lines.
    #[inline]
    pub(crate) fn word(self, offset: usize) -> &'a AtomicU64 {
        assert!(offset < LINES * ALIGN && offset.is_multiple_of(8), "a word of the lines");
        // SAFETY: the lines lie inside, and the word inside the lines.
        unsafe { self.memory.word_inside(self.start + offset) }
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of shared memory", self.len)
    }
}

struct Heap {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it is only held to be freed once, by whichever thread drops the last handle.
unsafe impl Send for Heap {}
// SAFETY: nothing can be done through a shared reference.
unsafe impl Sync for Heap {}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, freed here only, and no handle is left.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: it is only held to be unmapped once, by whichever thread drops the last handle.
unsafe impl Send for Mapping {}
// SAFETY: nothing can be done through a shared reference.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped with this length, unmapped here only, and no handle is left.
        let result = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(result.is_ok(), "a mapping of our own can be unmapped");
    }
}

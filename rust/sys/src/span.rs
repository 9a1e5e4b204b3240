//! Bytes that several handles of one thread may read and write, as through a `&[Cell<u8>]`.
//!
//! An in-place collective reads its input through one handle and writes its output through another
//! to the same memory. Rust's slices forbid that; raw pointers allow it and more. A span is the
//! middle: it has a lifetime and bounds, it can't leave its thread, and nobody ever makes a slice
//! of it while a writable handle lives.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::NonNull;

/// Bytes that can be read.
#[derive(Clone, Copy, Debug)]
pub struct ReadSpan<'a> {
    start: NonNull<u8>,
    len: usize,
    life: PhantomData<&'a [Cell<u8>]>,
}

/// Bytes that can be read and written.
#[derive(Clone, Copy, Debug)]
pub struct WriteSpan<'a> {
    start: NonNull<u8>,
    len: usize,
    life: PhantomData<&'a [Cell<u8>]>,
}

impl<'a> From<&'a [u8]> for ReadSpan<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        ReadSpan { start: NonNull::from(bytes).cast(), len: bytes.len(), life: PhantomData }
    }
}

impl<'a> From<&'a mut [u8]> for WriteSpan<'a> {
    fn from(bytes: &'a mut [u8]) -> Self {
        let len = bytes.len();
        WriteSpan { start: NonNull::from(bytes).cast(), len, life: PhantomData }
    }
}

impl<'a> From<WriteSpan<'a>> for ReadSpan<'a> {
    fn from(span: WriteSpan<'a>) -> Self {
        ReadSpan { start: span.start, len: span.len, life: PhantomData }
    }
}

impl<'a> ReadSpan<'a> {
    /// The `len` bytes at `start`.
    ///
    /// # Safety
    /// For `'a` the bytes must be readable memory, written by no other thread, and covered by no
    /// `&mut` reference that is used meanwhile.
    pub unsafe fn from_raw(start: NonNull<u8>, len: usize) -> ReadSpan<'a> {
        ReadSpan { start, len, life: PhantomData }
    }

    /// Its first byte's address.
    pub fn as_ptr(self) -> *const u8 {
        self.start.as_ptr()
    }

    /// The bytes `start..start + len`; panics if they are not all inside.
    #[inline]
    pub fn slice(self, start: usize, len: usize) -> ReadSpan<'a> {
        assert!(start.saturating_add(len) <= self.len, "a range inside the span");
        // SAFETY: start <= self.len, so the pointer stays inside the span or one past its end.
        ReadSpan { start: unsafe { self.start.add(start) }, len, life: PhantomData }
    }
}

impl ReadSpan<'_> {
    /// Whether it shares no byte with the other.
    pub fn is_disjoint(self, other: WriteSpan<'_>) -> bool {
        let (a, b) = (self.start.addr().get(), other.start.addr().get());
        a + self.len <= b || b + other.len <= a
    }

    /// Copies the bytes to others. Panics if those are not as many.
    #[inline]
    pub(crate) fn copy_to(self, out: WriteSpan<'_>) {
        assert!(self.len == out.len, "as many bytes as the span has");
        // SAFETY: the bytes are readable there and writable here.
        unsafe { copy(self.start.as_ptr(), out.start.as_ptr(), self.len) };
    }
}

impl<'a> WriteSpan<'a> {
    /// The `len` bytes at `start`.
    ///
    /// # Safety
    /// For `'a` the bytes must be readable and writable memory that no other thread reads or
    /// writes and that no reference which is used meanwhile covers.
    pub unsafe fn from_raw(start: NonNull<u8>, len: usize) -> WriteSpan<'a> {
        WriteSpan { start, len, life: PhantomData }
    }

    /// Its first byte's address.
    pub fn as_ptr(self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The bytes `start..start + len`; panics if they are not all inside.
    #[inline]
    pub fn slice(self, start: usize, len: usize) -> WriteSpan<'a> {
        assert!(start.saturating_add(len) <= self.len, "a range inside the span");
        // SAFETY: start <= self.len, so the pointer stays inside the span or one past its end.
        WriteSpan { start: unsafe { self.start.add(start) }, len, life: PhantomData }
    }
}

impl ReadSpan<'_> {
    /// Reads all bytes of the span. Panics if `bytes` has another length.
    #[inline]
    pub(crate) fn read(self, bytes: &mut [u8]) {
        assert!(self.len == bytes.len(), "as many bytes as the span has");
        // SAFETY: the span's bytes are readable, and `bytes` is this thread's alone.
        unsafe { copy(self.start.as_ptr(), bytes.as_mut_ptr(), self.len) };
    }
}

impl WriteSpan<'_> {
    /// Writes all bytes of the span. Panics if `bytes` has another length.
    #[inline]
    pub(crate) fn write(self, bytes: &[u8]) {
        assert!(self.len == bytes.len(), "as many bytes as the span has");
        // SAFETY: the span's bytes are writable, and no span may cover a slice.
        unsafe { copy(bytes.as_ptr(), self.start.as_ptr(), self.len) };
    }

    /// Flips one bit, if the span has that bit: for tests of what damage does.
    pub fn flip(self, bit: usize) {
        if bit / 8 < self.len {
            // SAFETY: the byte is one of the span's, which may be read and written.
            unsafe { *self.start.add(bit / 8).as_ptr() ^= 1 << (bit % 8) };
        }
    }
}

/// Copies bytes, which may overlap; a few of them without a call, which would take longer than they do.
///
/// # Safety
/// They are readable there and writable here.
#[inline]
pub(crate) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: as the caller promises.
    unsafe {
        match len {
            4..8 => copy_ends::<u32>(from, to, len),
            8..=16 => copy_ends::<u64>(from, to, len),
            _ => std::ptr::copy(from, to, len),
        }
    }
}

/// Copies the first and the last word of bytes that have no others.
///
/// # Safety
/// As for [`copy`], of one to two words.
#[inline]
unsafe fn copy_ends<W>(from: *const u8, to: *mut u8, len: usize) {
    let last = len - size_of::<W>();
    // SAFETY: as the caller promises.
    unsafe {
        let ends = [0, last].map(|at| from.add(at).cast::<W>().read_unaligned());
        for (at, end) in [0, last].into_iter().zip(ends) {
            to.add(at).cast::<W>().write_unaligned(end);
        }
    }
}

macro_rules! shared_methods {
    ($span:ident) => {
        impl $span<'_> {
            /// How many bytes it has.
            pub fn len(self) -> usize {
                self.len
            }

            /// Whether it has none.
            pub fn is_empty(self) -> bool {
                self.len == 0
            }

            /// Its bytes, copied out: for tests and cold paths.
            pub fn to_vec(self) -> Vec<u8> {
                let mut bytes = vec![0; self.len];
                // SAFETY: the span's bytes are readable for its lifetime, and `bytes` is fresh.
                unsafe { std::ptr::copy_nonoverlapping(self.start.as_ptr(), bytes.as_mut_ptr(), self.len) };
                bytes
            }
        }
    };
}
shared_methods!(ReadSpan);
shared_methods!(WriteSpan);

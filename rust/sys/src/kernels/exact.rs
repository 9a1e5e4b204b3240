//! The exact order, an element at a time, as the law has it: for wide sums and for the few elements
//! that the vectorised tiers leave.

use isobit_core::law::exact::{Wide, WideF32, WideF64};
use isobit_core::schedule::Content;
use isobit_core::{Contract, Dtype};

/// An input: where it starts and what it holds.
#[derive(Clone, Copy)]
pub(super) struct ExactSource {
    pub(super) start: *const u8,
    pub(super) is_wide: bool,
}

/// Whether the leaves in `inputs` are as many as `target` has.
pub(super) fn tile(contract: &Contract, inputs: &[Content], target: Content) -> bool {
    let leaves_of = |content| match content {
        Content::Leaf(leaf) => (leaf < contract.leaves()).then_some(1),
        Content::Wide(leaves) => Some(u64::from(leaves)),
        _ => None,
    };
    let given = inputs.iter().try_fold(0, |sum, content| Some(sum + leaves_of(*content)?));
    match target {
        Content::Result => given == Some(u64::from(contract.leaves())),
        Content::Wide(leaves) => given == Some(u64::from(leaves)),
        _ => false,
    }
}

/// Reduces the elements `range` of the sources to `out`, whose first element is the range's first.
///
/// # Safety
/// Each source has those elements; `out` has room for as many of `target`, and is disjoint from the
/// sources or the same memory element for element.
pub(super) unsafe fn reduce_scalar(
    contract: &Contract,
    sources: &[ExactSource],
    range: std::ops::Range<usize>,
    target: Content,
    out: *mut u8,
) {
    // SAFETY: as the caller promises.
    unsafe {
        match contract.dtype_in() {
            Dtype::F64 => reduce_wide(contract, sources, range, target, out, WideF64::default()),
            _ => reduce_wide(contract, sources, range, target, out, WideF32::default()),
        }
    }
}

/// # Safety
/// As for [`reduce_scalar`].
unsafe fn reduce_wide<const LIMBS: usize, const UNIT: i32>(
    contract: &Contract,
    sources: &[ExactSource],
    range: std::ops::Range<usize>,
    target: Content,
    out: *mut u8,
    none: Wide<LIMBS, UNIT>,
) {
    let dtype = contract.dtype_in();
    let mut bytes = vec![0; Wide::<LIMBS, UNIT>::BYTES];
    for (place, index) in range.enumerate() {
        let mut sum = none;
        for source in sources {
            let size = if source.is_wide { bytes.len() } else { dtype.size() };
            // SAFETY: the source has this element, of `size` bytes, and `bytes` is fresh memory.
            unsafe {
                let element = source.start.add(index * size);
                std::ptr::copy_nonoverlapping(element, bytes.as_mut_ptr(), size);
            }
            if source.is_wide {
                sum.merge(&Wide::read(&bytes));
            } else {
                sum.add_leaf(dtype, isobit_core::float::read_bits(&bytes[..size]));
            }
        }
        let size = match target {
            Content::Result => {
                let size = contract.dtype_out().size();
                isobit_core::float::write_bits(sum.finish(contract), &mut bytes[..size]);
                size
            }
            _ => {
                sum.write(&mut bytes);
                bytes.len()
            }
        };
        // SAFETY: the output has this element, of `size` bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), out.add(place * size), size) };
    }
}

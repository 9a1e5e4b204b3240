//! The exact order, an element at a time, as the law has it: for wide sums and for the few elements
//! that the vectorised tiers leave.

use isobit_core::law::exact::{Wide, WideF32, WideF64};
use isobit_core::schedule::Content;
use isobit_core::{Contract, Dtype};

use super::block::Source;

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
    sources: &[Source],
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
    sources: &[Source],
    range: std::ops::Range<usize>,
    target: Content,
    out: *mut u8,
    none: Wide<LIMBS, UNIT>,
) {
    let dtype = contract.dtype_in();
    let mut bytes = [0; WideF64::BYTES];
    let bytes = &mut bytes[..Wide::<LIMBS, UNIT>::BYTES];
    for (place, index) in range.enumerate() {
        let mut sum = none;
        for source in sources {
            let size = if source.is_leaf { dtype.size() } else { bytes.len() };
            // SAFETY: the source has this element, of `size` bytes, and `bytes` is fresh memory.
            unsafe {
                let element = source.start.add(index * size);
                std::ptr::copy_nonoverlapping(element, bytes.as_mut_ptr(), size);
            }
            if source.is_leaf {
                sum.add_leaf(dtype, isobit_core::float::read_bits(&bytes[..size]));
            } else {
                sum.merge(&Wide::read(bytes));
            }
        }
        let size = match target {
            Content::Result => {
                let size = contract.dtype_out().size();
                isobit_core::float::write_bits(sum.finish(contract), &mut bytes[..size]);
                size
            }
            _ => {
                sum.write(bytes);
                bytes.len()
            }
        };
        // SAFETY: the output has this element, of `size` bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), out.add(place * size), size) };
    }
}

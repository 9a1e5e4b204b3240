//! Four leaves and the inner nodes beside them become a node, straight from memory to memory: what an accumulation does
//! with gradients that are larger than the caches.
//!
//! All are read side by side, a cache line of each at a time, and the node is written as soon as it is there. Block by
//! block, as other reductions go, memory would be idle while a block is combined and written: that took 1.2 to 1.7
//! times as long.

use std::marker::PhantomData;

use isobit_core::schedule::Content;
use isobit_core::{Contract, Dtype, ReduceOp};

use super::block::Source;
use super::element::{Bf16, F32};
use super::fold::{FloatSum, Fold};
use super::isa::{Isa, Job};
use super::program::{Pass, Program};
use super::xxh3::{STRIPE_BYTES, Stripe};

/// How many leaves are combined.
const LEAVES: usize = 4;

/// With how many nodes at most: five complete 128 leaves of a rank.
const NODES_MAX: usize = 5;

/// Which inputs a merge combines: four leaves, from the first of them on, and then the nodes in their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Merge {
    of: Of,
    first: usize,
    nodes: [usize; NODES_MAX],
    count: usize,
}

/// Of what a node is the sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Of {
    F32InF64,
    Bf16InF32,
}

impl Merge {
    /// The merge that the program is, if it is one.
    pub(super) fn of(
        contract: &Contract,
        contents: &[Content],
        target: Content,
        program: &Program,
    ) -> Option<Merge> {
        let of = match (contract.op(), contract.dtype_in(), contract.dtype_acc()) {
            (ReduceOp::Sum | ReduceOp::Mean, Dtype::F32, Some(Dtype::F64)) => Of::F32InF64,
            (ReduceOp::Sum | ReduceOp::Mean, Dtype::Bf16, Some(Dtype::F32)) => Of::Bf16InF32,
            _ => return None,
        };
        let [Pass::Gather { first, count: LEAVES, .. }, others @ ..] = &program.passes[..] else {
            return None;
        };
        let is_leaf = |input: usize| matches!(contents[input], Content::Leaf(_));
        let is_node = matches!(target, Content::Node(_));
        if !is_node || !is_leaf(*first) || others.len() > NODES_MAX {
            return None;
        }
        let mut merge = Merge { of, first: *first, nodes: [0; NODES_MAX], count: others.len() };
        for (place, pass) in merge.nodes.iter_mut().zip(others) {
            match pass {
                Pass::CombineInput { input, .. } if !is_leaf(*input) => *place = *input,
                _ => return None,
            }
        }
        Some(merge)
    }
}

/// Where they are and where the node goes.
#[derive(Clone)]
pub(super) struct Places<'a> {
    pub(super) sources: &'a [Source],
    pub(super) out: *mut u8,
    /// Which elements of all.
    pub(super) elements: std::ops::Range<usize>,
    /// Whether the node goes past the caches; a fence must follow.
    pub(super) is_streamed: bool,
}

/// # Safety
/// The instruction set is available; each source has the elements, and so has the output, which is disjoint from it or
/// the same memory, element for element.
pub(super) unsafe fn merge<I: Isa>(merge: Merge, places: Places<'_>) {
    /// # Safety
    /// As above.
    unsafe fn of<I: Isa, F: Wide>(merge: Merge, places: Places<'_>) {
        // SAFETY: as the caller promises.
        unsafe {
            match merge.count {
                0 => with::<I, F, 0>(merge, places),
                1 => with::<I, F, 1>(merge, places),
                2 => with::<I, F, 2>(merge, places),
                3 => with::<I, F, 3>(merge, places),
                4 => with::<I, F, 4>(merge, places),
                _ => with::<I, F, NODES_MAX>(merge, places),
            }
        }
    }

    /// # Safety
    /// As above.
    unsafe fn with<I: Isa, F: Wide, const NODES: usize>(merge: Merge, places: Places<'_>) {
        let (start, len, of) = (places.elements.start, places.elements.len(), PhantomData);
        let place = |input: usize| places.sources[input].start;
        // SAFETY: as the caller promises.
        unsafe {
            let leaves = std::array::from_fn(|k| place(merge.first + k).cast::<F::Leaf>().add(start));
            let nodes = std::array::from_fn(|k| place(merge.nodes[k]).cast::<F::Node>().add(start));
            let out = places.out.cast::<F::Node>().add(start);
            I::run(Sum::<I::Stripe, F, NODES> {
                leaves,
                nodes,
                out,
                len,
                is_streamed: places.is_streamed,
                of,
            });
        }
    }

    // SAFETY: as the caller promises.
    unsafe {
        match merge.of {
            Of::F32InF64 => of::<I, FloatSum<F32, f64, 8>>(merge, places),
            Of::Bf16InF32 => of::<I, FloatSum<Bf16, f32, 8>>(merge, places),
        }
    }
}

/// A sum whose nodes are twice as wide as its leaves, by stripes.
trait Wide: Fold {
    /// The leaves in a stripe as values: two stripes of them.
    ///
    /// # Safety
    /// The instruction set of `S` is available.
    unsafe fn widen<S: Stripe>(leaves: S) -> [S; 2];

    /// # Safety
    /// The instruction set of `S` is available.
    unsafe fn add<S: Stripe>(left: S, right: S, is_plain: bool) -> S;
}

macro_rules! wide {
    ($leaf:ty, $value:ty, $widen:ident, $add:ident) => {
        impl Wide for FloatSum<$leaf, $value, 8> {
            #[inline(always)]
            unsafe fn widen<S: Stripe>(leaves: S) -> [S; 2] {
                // SAFETY: as the caller promises.
                unsafe { leaves.$widen() }
            }

            #[inline(always)]
            unsafe fn add<S: Stripe>(left: S, right: S, is_plain: bool) -> S {
                // SAFETY: as the caller promises.
                unsafe { left.$add(right, is_plain) }
            }
        }
    };
}
wide!(F32, f64, widen_f32, add_f64);
wide!(Bf16, f32, widen_bf16, add_f32);

struct Sum<S, F: Fold, const NODES: usize> {
    leaves: [*const F::Leaf; LEAVES],
    nodes: [*const F::Node; NODES],
    out: *mut F::Node,
    len: usize,
    is_streamed: bool,
    of: PhantomData<S>,
}

impl<S: Stripe, F: Wide, const NODES: usize> Sum<S, F, NODES> {
    /// The elements of two stripes of the output, from `at` on.
    ///
    /// # Safety
    /// The set is available; they are inside.
    #[inline(always)]
    unsafe fn stripes(&self, at: usize) {
        // SAFETY: as the caller promises.
        unsafe {
            let leaves = self.leaves.map(|from| F::widen(S::load(from.add(at).cast())));
            for half in 0..2 {
                let [a, b, c, d] = leaves.map(|leaf| leaf[half]);
                let at = at + half * (STRIPE_BYTES / size_of::<F::Node>());
                // A NaN may have any bits until it leaves.
                let mut sum = F::add(F::add(a, b, true), F::add(c, d, true), NODES > 0);
                for (k, from) in self.nodes.iter().enumerate() {
                    sum = F::add(sum, S::load(from.add(at).cast()), k + 1 < NODES);
                }
                let out = self.out.add(at).cast();
                if self.is_streamed { sum.stream(out) } else { sum.store(out) }
            }
        }
    }

    /// The elements from `start` to `end`, which are few.
    ///
    /// # Safety
    /// They are inside.
    #[inline(always)]
    unsafe fn few(&self, start: usize, end: usize) {
        let mut at = start;
        while at < end {
            // SAFETY: as the caller promises.
            unsafe {
                let [a, b, c, d] = self.leaves.map(|from| F::leaf(from.add(at).read_unaligned()));
                let mut sum = F::combine(F::combine(a, b), F::combine(c, d));
                for from in self.nodes {
                    sum = F::combine(sum, F::OfNodes::leaf(from.add(at).read_unaligned()));
                }
                self.out.add(at).write_unaligned(F::to_node(sum));
            }
            at += 1;
        }
    }
}

impl<S: Stripe, F: Wide, const NODES: usize> Job for Sum<S, F, NODES> {
    #[inline(always)]
    fn run(mut self) {
        let size = size_of::<F::Node>();
        let (head, step) = (self.out.cast::<u8>().align_offset(STRIPE_BYTES), 2 * STRIPE_BYTES / size);
        // What doesn't begin with an element can't be written by whole lines.
        self.is_streamed &= head.is_multiple_of(size);
        let head = if self.is_streamed { (head / size).min(self.len) } else { 0 };
        let end = head + (self.len - head) / step * step;
        // SAFETY: a `Sum` runs where its set is available; all of this is inside.
        unsafe {
            self.few(0, head);
            for at in (head..end).step_by(step) {
                self.stripes(at);
            }
            self.few(end, self.len);
        }
    }
}

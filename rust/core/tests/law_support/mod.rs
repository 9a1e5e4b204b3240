//! What the tests of the law share: short ways to contracts and tensors, and leaves that hurt.
#![allow(dead_code, reason = "each test file uses some of it")]

use isobit_core::float::write_bits;
use isobit_core::law::reduce_element;
use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp};

/// Every operation that a dtype has.
pub(crate) fn ops(dtype: Dtype) -> Vec<ReduceOp> {
    let defined = |op| Contract::new(ContractSpec::new(op, Order::Tree, 1, dtype)).is_ok();
    ReduceOp::ALL.iter().copied().filter(|op| defined(*op)).collect()
}

pub(crate) fn spec(op: ReduceOp, leaves: usize, dtype: Dtype) -> ContractSpec {
    ContractSpec::new(op, Order::Tree, leaves as u32, dtype)
}

pub(crate) fn tree(op: ReduceOp, leaves: usize, dtype: Dtype) -> Contract {
    Contract::new(spec(op, leaves, dtype)).unwrap()
}

pub(crate) fn tree_in(acc: Dtype, op: ReduceOp, leaves: usize, dtype: Dtype) -> Contract {
    Contract::new(ContractSpec { accumulate: Some(acc), ..spec(op, leaves, dtype) }).unwrap()
}

pub(crate) fn exact(op: ReduceOp, leaves: usize, dtype: Dtype) -> Contract {
    Contract::new(ContractSpec { order: Order::Exact, ..spec(op, leaves, dtype) }).unwrap()
}

/// The result of f32 leaves in f32.
pub(crate) fn of_f32(contract: &Contract, leaves: &[f32]) -> f32 {
    let patterns: Vec<u64> = leaves.iter().map(|leaf| u64::from(leaf.to_bits())).collect();
    f32::from_bits(reduce_element(contract, &patterns) as u32)
}

/// The result of f64 leaves in f64.
pub(crate) fn of_f64(contract: &Contract, leaves: &[f64]) -> f64 {
    let patterns: Vec<u64> = leaves.iter().map(|leaf| leaf.to_bits()).collect();
    f64::from_bits(reduce_element(contract, &patterns))
}

/// The bytes of a tensor of these patterns.
pub(crate) fn tensor(dtype: Dtype, patterns: &[u64]) -> Vec<u8> {
    let mut bytes = vec![0; patterns.len() * dtype.size()];
    for (element, bits) in bytes.chunks_exact_mut(dtype.size()).zip(patterns) {
        write_bits(*bits, element);
    }
    bytes
}

/// SplitMix64: a small generator whose every state is a good seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// A pattern of `dtype`: mostly near one, so that sums round and cancel, sometimes anything at
    /// all, sometimes a zero or the least subnormal.
    pub(crate) fn pattern(&mut self, dtype: Dtype) -> u64 {
        let kept = u64::MAX >> (64 - 8 * dtype.size());
        let any = self.bits() & kept;
        let near = |spread: i32, random: &mut Random| {
            let fraction = 1.0 + (random.bits() >> 12) as f64 / 2f64.powi(52);
            let sign = if random.bits() & 1 == 0 { 1.0 } else { -1.0 };
            let exponent = random.below(2 * spread as usize + 1) as i32 - spread;
            isobit_core::float::from_f64(dtype, sign * fraction * 2f64.powi(exponent))
        };
        match (dtype.is_float(), self.below(32)) {
            (false, _) | (true, 0) => any,
            (true, 1) => (any >> 8 & 1) << (8 * dtype.size() - 1),
            (true, 2) => (any & 1) | (any >> 8 & 1) << (8 * dtype.size() - 1),
            (true, 3..10) => near(12, self),
            (true, _) => near(2, self),
        }
    }
}

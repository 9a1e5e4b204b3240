//! Every instruction set's reductions give the law's bits: every operation, dtype, accumulator and
//! result, any tiling, special values, odd lengths, unaligned and shared memory.

mod reduce_support;

use isobit_core::law::{LeafSet, Node, cover, fold};
use isobit_core::schedule::Content;
use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp};
use isobit_sys::Kernels;
use proptest::prelude::*;
use reduce_support::{Rng, Values, check, tensor};

/// Inputs that tile `target`: its leaves, or covers of random runs of them.
fn inputs_of(
    contract: &Contract,
    target: Node,
    len: usize,
    values: Values,
    rng: &mut Rng,
) -> Vec<(Content, Vec<u8>)> {
    let mut inputs = Vec::new();
    let mut first = target.first();
    while first < target.end() {
        let rest = u64::from(target.end() - first);
        let count = match rng.below(3) {
            0 => 1 + rng.below(rest),
            1 => 1,
            _ => rest.min(1 + rng.below(4)),
        };
        let end = first + count as u32;
        let raw = rng.below(2) == 0 || contract.leaves() == 1;
        match contract.order() {
            Order::Exact if !raw => {
                let leaves: Vec<Vec<u8>> =
                    (first..end).map(|_| tensor(contract.dtype_in(), len, values, rng)).collect();
                let leaves: Vec<(Content, &[u8])> =
                    (first..end).map(Content::Leaf).zip(leaves.iter().map(Vec::as_slice)).collect();
                let target = Content::Wide(end - first);
                inputs.push((target, fold(contract, &leaves, target)));
            }
            Order::Tree if !raw => {
                let nodes = cover(contract.leaves(), &LeafSet::run(first, end));
                inputs.extend(nodes.into_iter().map(Content::of_node).map(|content| {
                    let dtype = content.dtype(Some(contract), contract.dtype_in()).unwrap();
                    (content, tensor(dtype, len, values, rng))
                }));
            }
            _ => inputs.extend(
                (first..end).map(|leaf| (Content::Leaf(leaf), tensor(contract.dtype_in(), len, values, rng))),
            ),
        }
        first = end;
    }
    inputs
}

/// Every contract with these leaves, but for accumulators and results, of which one is drawn.
fn contracts(leaves: u32, rng: &mut Rng) -> Vec<Contract> {
    let mut found = Vec::new();
    for dtype in Dtype::ALL {
        for &op in ReduceOp::ALL {
            for &order in Order::ALL {
                let mut spec = ContractSpec::new(op, order, leaves, dtype);
                spec.accumulate = [None, Some(Dtype::F32), Some(Dtype::F64)][rng.below(3) as usize];
                if rng.below(2) == 0 {
                    spec.out_dtype = Some(Dtype::FLOATS[rng.below(6) as usize]);
                }
                if op == ReduceOp::Mean && rng.below(2) == 0 {
                    spec.divisor = Some(1 + rng.below(12));
                }
                let plain = ContractSpec::new(op, order, leaves, dtype);
                found.extend(Contract::new(spec).or_else(|_| Contract::new(plain)));
            }
        }
    }
    found
}

fn targets(contract: &Contract) -> Vec<(Node, Content)> {
    let root = Node::root(contract.leaves());
    let mut targets = vec![(root, Content::Result)];
    match contract.order() {
        Order::Exact => targets.push((root, Content::Wide(contract.leaves()))),
        Order::Tree => targets.extend(
            root.children()
                .map(|(left, _)| left)
                .filter(|left| !left.is_leaf())
                .map(|left| (left, Content::Node(left))),
        ),
    }
    targets
}

fn sweep(leaves: u32, len: usize, values: Values, seed: u64) {
    let mut rng = Rng(seed);
    for contract in contracts(leaves, &mut rng) {
        for (node, target) in targets(&contract) {
            let inputs = inputs_of(&contract, node, len, values, &mut rng);
            check(&contract, &inputs, target);
        }
    }
}

#[test]
fn every_contract_gives_the_laws_bits_on_every_instruction_set() {
    for leaves in 1..=9 {
        for values in [Values::Any, Values::Close, Values::Special, Values::Spread] {
            sweep(leaves, 37, values, u64::from(leaves) * 31);
        }
    }
}

#[test]
fn blocks_and_their_remainders_give_the_laws_bits() {
    for len in [0, 1, 15, 16, 511, 512, 513, 1100] {
        if len == 0 {
            continue;
        }
        sweep(3, len, Values::Spread, len as u64);
    }
}

#[test]
fn whole_messages_give_the_laws_bits_and_their_checksum() {
    let mut rng = Rng(5);
    let reductions = [(ReduceOp::Sum, 2), (ReduceOp::Mean, 2), (ReduceOp::Sum, 3)];
    for dtype in [Dtype::F32, Dtype::Bf16] {
        for ((op, leaves), order) in
            reductions.into_iter().flat_map(|of| [Order::Tree, Order::Exact].map(|to| (of, to)))
        {
            let contract = Contract::new(ContractSpec::new(op, order, leaves, dtype)).unwrap();
            for len in [61, 256, 257, 4096, 16_383, 16_384] {
                let leaf = |leaf| (Content::Leaf(leaf), tensor(dtype, len, Values::Special, &mut rng));
                let inputs: Vec<_> = (0..leaves).map(leaf).collect();
                check(&contract, &inputs, Content::Result);
            }
        }
    }
}

#[test]
fn fused_raw_leaves_give_the_laws_bits() {
    let mut rng = Rng(7);
    for leaves in [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 24, 33] {
        for dtype in Dtype::FLOATS {
            for order in [Order::Tree, Order::Exact] {
                for op in [ReduceOp::Sum, ReduceOp::Mean] {
                    let contract = Contract::new(ContractSpec::new(op, order, leaves, dtype)).unwrap();
                    for values in [Values::Close, Values::Special, Values::Spread] {
                        let inputs: Vec<_> = (0..leaves)
                            .map(|leaf| (Content::Leaf(leaf), tensor(dtype, 601, values, &mut rng)))
                            .collect();
                        check(&contract, &inputs, Content::Result);
                    }
                }
            }
        }
    }
}

/// Where the second is far below the first, as near to a tie as can be: what is rounded twice would show.
#[test]
fn two_f32_give_the_laws_bits_at_every_distance_and_tie() {
    let mut rng = Rng(11);
    let mut pair = [Vec::new(), Vec::new()];
    for distance in 0..64u32 {
        for exponent in [distance, distance + 1, 127, 190, 253, 254] {
            let mantissas = [0, 1, 2, 1 << 22, (1 << 22) + 1, (1 << 23) - 1, rng.below(1 << 23) as u32];
            for (first, second) in mantissas.iter().flat_map(|a| mantissas.map(|b| (*a, b))) {
                let sign = (rng.below(2) as u32) << 31;
                pair[0].extend((exponent << 23 | first).to_le_bytes());
                pair[1].extend((sign | (exponent.saturating_sub(distance) << 23) | second).to_le_bytes());
            }
        }
    }
    let inputs: Vec<_> = (0..).map(Content::Leaf).zip(pair).collect();
    let orders = [(Order::Tree, None), (Order::Tree, Some(Dtype::F32)), (Order::Exact, None)];
    for (order, accumulate) in orders {
        for divisor in [None, Some(1), Some(2), Some(3), Some(4)] {
            let op = if divisor.is_some() { ReduceOp::Mean } else { ReduceOp::Sum };
            let spec = ContractSpec { divisor, accumulate, ..ContractSpec::new(op, order, 2, Dtype::F32) };
            let contract = Contract::new(spec).unwrap();
            check(&contract, &inputs, Content::Result);
            let is_one_rounding =
                matches!(divisor, None | Some(1)) || divisor == Some(2) && accumulate.is_none();
            let contents = [Content::Leaf(0), Content::Leaf(1)];
            let prepared = Kernels::best().prepare(&contract, &contents, Content::Result).unwrap();
            assert_eq!(prepared.can_keep(), is_one_rounding, "{contract}");
        }
    }
}

/// Each bf16 with others at many distances from it.
#[test]
fn two_bf16_give_the_laws_bits_at_every_distance_and_tie() {
    let mut rng = Rng(17);
    let first = 0..=u16::MAX;
    let second = first.clone().map(|bits| {
        let (distance, mantissa) = (rng.below(20) as u16, rng.below(128) as u16);
        let exponent = ((bits >> 7) & 0xff).saturating_sub(distance);
        (rng.below(2) as u16) << 15 | exponent << 7 | mantissa
    });
    let bytes = |bits: &mut dyn Iterator<Item = u16>| bits.flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let pair = [bytes(&mut first.clone()), bytes(&mut second.into_iter())];
    let inputs: Vec<_> = (0..).map(Content::Leaf).zip(pair).collect();
    for (order, accumulate) in [(Order::Tree, None), (Order::Tree, Some(Dtype::F64)), (Order::Exact, None)] {
        for divisor in [None, Some(1), Some(2)] {
            let op = if divisor.is_some() { ReduceOp::Mean } else { ReduceOp::Sum };
            let spec = ContractSpec { divisor, accumulate, ..ContractSpec::new(op, order, 2, Dtype::Bf16) };
            let contract = Contract::new(spec).unwrap();
            check(&contract, &inputs, Content::Result);
            let contents = [Content::Leaf(0), Content::Leaf(1)];
            let prepared = Kernels::best().prepare(&contract, &contents, Content::Result).unwrap();
            let is_one_pass = divisor != Some(2) || contract.dtype_acc() == Some(Dtype::F32);
            assert_eq!(prepared.can_keep(), is_one_pass, "{contract}");
        }
    }
}

/// From the largest, which a divisor makes small, down to the subnormals, which it rounds.
#[test]
fn a_mean_by_any_power_of_two_gives_the_laws_bits_at_every_exponent() {
    let mut rng = Rng(13);
    for dtype in [Dtype::F32, Dtype::F64] {
        let (exponents, mantissa) = if dtype == Dtype::F32 { (256, 23) } else { (2048, 52) };
        let ends =
            |exponent: &u64| *exponent < 140 || exponents - exponent < 4 || exponent.is_multiple_of(64);
        let leaf: Vec<u8> = (0..exponents)
            .filter(ends)
            .flat_map(|exponent| {
                let mantissas =
                    [0, 1, 1 << (mantissa - 1), (1 << mantissa) - 1, rng.next() % (1 << mantissa)];
                mantissas.map(|bits| (rng.below(2) << (8 * dtype.size() - 1)) | exponent << mantissa | bits)
            })
            .flat_map(|bits| bits.to_le_bytes().into_iter().take(dtype.size()))
            .collect();
        for power in 0..64 {
            for (order, accumulate) in [(Order::Tree, Some(dtype)), (Order::Tree, None), (Order::Exact, None)]
            {
                let divisor = Some(1 << power);
                let spec = ContractSpec::new(ReduceOp::Mean, order, 1, dtype);
                let contract = Contract::new(ContractSpec { divisor, accumulate, ..spec }).unwrap();
                check(&contract, &[(Content::Leaf(0), leaf.clone())], Content::Result);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn random_tilings_give_the_laws_bits(leaves in 1u32..70, len in 1usize..40, which in 0usize..4, seed: u64) {
        let values = [Values::Any, Values::Close, Values::Special, Values::Spread][which];
        sweep(leaves, len, values, seed);
    }
}

//! The tree: its shape as seen from outside, and that ownership can't reach a bit of its value.

mod law_support;

use isobit_core::ReduceOp::{self, Max, Mean, Min, Prod, Sum};
use isobit_core::law::{LeafMap, LeafSet, Node, contributions, cover, fold, reduce, reduce_element};
use isobit_core::schedule::Content;
use isobit_core::{Contract, ContractSpec, Dtype, Order, float};
use law_support::{Random, ops, spec, tensor, tree, tree_in};
use proptest::prelude::*;

const NUMBERS_OF_LEAVES: [usize; 12] = [1, 2, 3, 5, 7, 8, 12, 24, 48, 60, 64, 97];

/// The tree written the other way: level by level, pairs of neighbours, an odd one passes.
fn by_levels<T: Copy>(leaves: &[T], combine: impl Fn(T, T) -> T) -> T {
    let mut level = leaves.to_vec();
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| if let [left, right] = *pair { combine(left, right) } else { pair[0] })
            .collect();
    }
    level[0]
}

#[test]
fn a_tree_revealed_from_outside_is_the_documented_one() {
    // M + 1 = M in f32 and f64: whatever meets M before -M has come is lost, the rest is counted.
    const MASK: f64 = (1u64 << 60) as f64;
    for leaves in NUMBERS_OF_LEAVES.into_iter().chain([4, 6, 9, 11, 16, 17, 31, 32, 33]) {
        for acc in [Dtype::F32, Dtype::F64] {
            let contract = tree_in(acc, Sum, leaves, Dtype::F32);
            for (i, j) in (0..leaves).flat_map(|j| (0..j).map(move |i| (i, j))) {
                let mut values = vec![1.0; leaves];
                (values[i], values[j]) = (MASK, -MASK);
                let patterns: Vec<u64> = values.iter().map(|x| float::from_f64(Dtype::F32, *x)).collect();
                let outside = float::to_f32(Dtype::F32, reduce_element(&contract, &patterns)) as usize;
                let level = (0..).find(|level| i >> level == j >> level).unwrap();
                let first = (i >> level) << level;
                let inside = (first + (1 << level)).min(leaves) - first;
                assert_eq!(leaves - outside, inside, "leaves {i} and {j} of {leaves} meet in {acc}");
            }
        }
    }
}

#[test]
fn a_reduction_is_the_levels_of_its_tree_in_hardware_arithmetic() {
    let mut random = Random(1);
    for leaves in NUMBERS_OF_LEAVES {
        for _ in 0..50 {
            let values: Vec<f32> =
                (0..leaves).map(|_| float::to_f32(Dtype::F32, random.pattern(Dtype::F32))).collect();
            let patterns: Vec<u64> = values.iter().map(|x| u64::from(x.to_bits())).collect();
            let wide: Vec<f64> = values.iter().map(|x| f64::from(*x)).collect();
            let of = |acc, op| reduce_element(&tree_in(acc, op, leaves, Dtype::F32), &patterns);
            let same = |bits: u64, expected: f32| {
                let expected = if expected.is_nan() { 0x7fc0_0000 } else { expected.to_bits() };
                assert_eq!(bits, u64::from(expected), "{leaves} leaves {values:?}");
            };
            same(of(Dtype::F32, Sum), by_levels(&values, |a, b| a + b));
            same(of(Dtype::F32, Prod), by_levels(&values, |a, b| a * b));
            same(of(Dtype::F32, Mean), by_levels(&values, |a, b| a + b) / leaves as f32);
            same(of(Dtype::F64, Sum), by_levels(&wide, |a, b| a + b) as f32);
            same(of(Dtype::F64, Prod), by_levels(&wide, |a, b| a * b) as f32);
            same(of(Dtype::F64, Mean), (by_levels(&wide, |a, b| a + b) / leaves as f64) as f32);
        }
    }
}

#[test]
fn integers_wrap_and_bools_are_zero_or_one() {
    let of = |op, dtype, leaves: &[i64]| {
        let patterns: Vec<u64> = leaves.iter().map(|leaf| *leaf as u64).collect();
        let bytes: Vec<Vec<u8>> = patterns.iter().map(|bits| tensor(dtype, &[*bits])).collect();
        let bytes: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
        let result = reduce(&tree(op, leaves.len(), dtype), &bytes);
        assert_eq!(result.len(), dtype.size());
        float::read_bits(&result)
    };
    assert_eq!(of(Sum, Dtype::I8, &[100, 100, 1]), 201);
    assert_eq!(of(Sum, Dtype::U8, &[200, 100]), 44);
    assert_eq!(of(Prod, Dtype::I16, &[300, 300, -1]), (-(300i64 * 300) as u64) & 0xffff);
    assert_eq!(of(Prod, Dtype::U64, &[-1, -1]), 1);
    assert_eq!(of(Sum, Dtype::I64, &[i64::MAX, 1]), 1 << 63);
    assert_eq!(of(Min, Dtype::I32, &[1, -1, 7]), 0xffff_ffff);
    assert_eq!(of(Max, Dtype::I32, &[1, -1, 7]), 7);
    assert_eq!(of(Max, Dtype::U32, &[1, 0xffff_ffff, 7]), 0xffff_ffff);
    assert_eq!(of(Min, Dtype::I64, &[i64::MIN, 3]), 1 << 63);
    assert_eq!(of(ReduceOp::Band, Dtype::U16, &[0xff0f, 0x0fff]), 0x0f0f);
    assert_eq!(of(ReduceOp::Bxor, Dtype::I8, &[-1, 1, 1]), 0xff);
    for (op, expected) in [(Min, 0), (Max, 1), (ReduceOp::Band, 0), (ReduceOp::Bor, 1), (ReduceOp::Bxor, 0)] {
        assert_eq!(of(op, Dtype::Bool, &[2, 0, 255]), expected, "{op} of bools");
        assert_eq!(of(op, Dtype::Bool, &[4]), 1, "a lone leaf too becomes 0 or 1");
    }
}

/// Leaves of `elements` elements each, as bytes.
fn random_leaves(random: &mut Random, dtype: Dtype, leaves: usize, elements: usize) -> Vec<Vec<u8>> {
    let tensor_of = |random: &mut Random| {
        let patterns: Vec<u64> = (0..elements).map(|_| random.pattern(dtype)).collect();
        tensor(dtype, &patterns)
    };
    (0..leaves).map(|_| tensor_of(random)).collect()
}

fn slices(tensors: &[Vec<u8>]) -> Vec<&[u8]> {
    tensors.iter().map(Vec::as_slice).collect()
}

/// The leaves of `set` below `content`.
fn leaves_below(content: Content, set: &LeafSet) -> Vec<u32> {
    match content {
        Content::Leaf(leaf) => vec![leaf],
        Content::Node(node) => (node.first()..node.end()).collect(),
        Content::Wide(_) => set.iter().collect(),
        other => panic!("{other:?} is no contribution"),
    }
}

/// A reduction the way ranks do it: each folds its leaves into its contributions, then the
/// contributions of all are folded, by halves in tree order, into the result.
fn by_ranks(contract: &Contract, map: &LeafMap, leaves: &[Vec<u8>]) -> Vec<u8> {
    let mut parts: Vec<(Content, Vec<u8>)> = Vec::new();
    for rank in 0..map.world_size() {
        for content in contributions(contract, map, rank) {
            let inputs: Vec<(Content, &[u8])> = leaves_below(content, map.of(rank))
                .into_iter()
                .map(|leaf| (Content::Leaf(leaf), leaves[leaf as usize].as_slice()))
                .collect();
            let bytes = match content {
                Content::Leaf(leaf) => leaves[leaf as usize].clone(),
                _ => fold(contract, &inputs, content),
            };
            parts.push((content, bytes));
        }
    }
    if contract.order() == Order::Tree {
        parts.sort_by_key(|(content, _)| leaves_below(*content, &LeafSet::default())[0]);
    }
    let inputs: Vec<(Content, &[u8])> = parts.iter().map(|(content, bytes)| (*content, &bytes[..])).collect();
    fold(contract, &inputs, Content::Result)
}

/// Every leaf to a random rank: cuts anywhere, ranks without leaves, one rank that owns all.
fn random_map(random: &mut Random, leaves: usize, world: usize) -> LeafMap {
    let by_cuts = random.below(2) == 0;
    let mut owners: Vec<usize> = (0..leaves).map(|_| random.below(world)).collect();
    if by_cuts {
        owners.sort_unstable();
    }
    let owned = |rank| {
        let leaves = (0..leaves).filter(|leaf| owners[*leaf] == rank);
        LeafSet::from_leaves(leaves.map(|leaf| leaf as u32))
    };
    let sets = (0..world).map(owned).collect();
    LeafMap::new(leaves as u32, sets).unwrap()
}

#[test]
fn whoever_owns_the_leaves_the_bits_are_the_same() {
    let mut random = Random(2);
    for dtype in Dtype::ALL {
        for op in ops(dtype) {
            for leaves in NUMBERS_OF_LEAVES {
                let tensors = random_leaves(&mut random, dtype, leaves, 5);
                for order in [Order::Tree, Order::Exact] {
                    let Ok(contract) = Contract::new(ContractSpec { order, ..spec(op, leaves, dtype) })
                    else {
                        assert_eq!((op, order), (Prod, Order::Exact));
                        continue;
                    };
                    let whole = reduce(&contract, &slices(&tensors));
                    for world in [1, 2, 3, 4, 5, 8, 13] {
                        let even = LeafMap::even(leaves as u32, world as u32);
                        assert_eq!(by_ranks(&contract, &even, &tensors), whole, "{contract}, {world} ranks");
                        let any = random_map(&mut random, leaves, world);
                        assert_eq!(by_ranks(&contract, &any, &tensors), whole, "{contract}, {any:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn swapping_two_leaves_is_noticed() {
    let contract = tree_in(Dtype::F32, Sum, 5, Dtype::F32);
    let of = |order: [usize; 5]| {
        let leaves = [1e8f32, 1.0, -1e8, 3.0, 0.1];
        reduce_element(&contract, &order.map(|leaf| u64::from(leaves[leaf].to_bits())))
    };
    assert_ne!(of([0, 1, 2, 3, 4]), of([0, 2, 1, 3, 4]));
    assert_ne!(of([0, 1, 2, 3, 4]), of([4, 1, 2, 3, 0]));
}

#[test]
#[should_panic(expected = "do not tile")]
fn inputs_that_do_not_tile_the_target_are_refused() {
    let contract = tree(Sum, 3, Dtype::F32);
    fold(&contract, &[(Content::Leaf(0), &[0; 4]), (Content::Leaf(2), &[0; 4])], Content::Result);
}

#[test]
#[should_panic(expected = "all inputs have 2 elements")]
fn inputs_of_different_lengths_are_refused() {
    let contract = tree(Sum, 2, Dtype::F32);
    fold(&contract, &[(Content::Leaf(0), &[0; 8]), (Content::Leaf(1), &[0; 4])], Content::Result);
}

#[test]
fn a_reduction_of_no_elements_is_empty() {
    for contract in [tree(Sum, 2, Dtype::F32), law_support::exact(Sum, 2, Dtype::F64)] {
        assert!(reduce(&contract, &[&[], &[]]).is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn nodes_finished_anywhere_on_the_way_change_nothing(seed: u64, leaves in 2usize..100) {
        let mut random = Random(seed);
        let dtype = Dtype::FLOATS[random.below(6)];
        let contract = tree(Sum, leaves, dtype);
        let tensors = random_leaves(&mut random, dtype, leaves, 3);
        // Fold any run of leaves into its cover, then what lies below any node into that node.
        let mut level: Vec<(Content, Vec<u8>)> = (0..).map(Content::Leaf).zip(tensors.clone()).collect();
        for _ in 0..4 {
            let cut = random.below(leaves) as u32;
            let run = LeafSet::run(cut, cut + 1 + random.below(leaves) as u32);
            for node in cover(leaves as u32, &run).into_iter().filter(|node| !node.is_leaf()) {
                let node_of = |content| match content {
                    Content::Leaf(leaf) => Node::leaf(leaf),
                    Content::Node(node) => node,
                    _ => unreachable!(),
                };
                if level.iter().any(|(content, _)| node_of(*content).contains(node)) {
                    continue;
                }
                let below: Vec<(Content, &[u8])> = level
                    .iter()
                    .filter(|(content, _)| node.contains(node_of(*content)))
                    .map(|(content, bytes)| (*content, &bytes[..]))
                    .collect();
                let bytes = fold(&contract, &below, Content::Node(node));
                let at = level.iter().position(|(content, _)| node.contains(node_of(*content))).unwrap();
                let replaced = below.len();
                level.splice(at..at + replaced, [(Content::Node(node), bytes)]);
            }
        }
        let inputs: Vec<(Content, &[u8])> = level.iter().map(|(content, bytes)| (*content, &bytes[..])).collect();
        prop_assert_eq!(fold(&contract, &inputs, Content::Result), reduce(&contract, &slices(&tensors)));
    }

    #[test]
    fn reducing_two_tensors_joined_is_joining_their_reductions(seed: u64, leaves in 1usize..20, cut in 0usize..8) {
        let mut random = Random(seed);
        let dtype = Dtype::ALL[random.below(15)];
        let op = ops(dtype)[random.below(ops(dtype).len())];
        let contract = tree(op, leaves, dtype);
        let tensors = random_leaves(&mut random, dtype, leaves, 8);
        let at = cut * dtype.size();
        let heads: Vec<&[u8]> = tensors.iter().map(|bytes| &bytes[..at]).collect();
        let tails: Vec<&[u8]> = tensors.iter().map(|bytes| &bytes[at..]).collect();
        let joined = [reduce(&contract, &heads), reduce(&contract, &tails)].concat();
        prop_assert_eq!(reduce(&contract, &slices(&tensors)), joined);
    }

    #[test]
    fn minimum_and_maximum_are_those_of_the_total_order(seed: u64, leaves in 1usize..20) {
        let mut random = Random(seed);
        let dtype = Dtype::FLOATS[random.below(6)];
        let patterns: Vec<u64> = (0..leaves).map(|_| random.pattern(dtype)).collect();
        let values: Vec<f64> = patterns.iter().map(|bits| float::to_f64(dtype, *bits)).collect();
        let nan = values.iter().any(|value| value.is_nan()).then_some(float::canonical_nan(dtype));
        let least = values.iter().copied().min_by(f64::total_cmp).unwrap();
        let greatest = values.iter().copied().max_by(f64::total_cmp).unwrap();
        let of = |op| reduce_element(&tree(op, leaves, dtype), &patterns);
        prop_assert_eq!(of(Min), nan.unwrap_or(float::from_f64(dtype, least)));
        prop_assert_eq!(of(Max), nan.unwrap_or(float::from_f64(dtype, greatest)));
    }
}

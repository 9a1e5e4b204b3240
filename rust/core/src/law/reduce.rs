//! Whole reductions on bytes: the law as a function of all leaves, and one step of a schedule.
//!
//! `reduce` is the definition, written as the recursion of the law. `fold` carries out one `Reduce` of a
//! schedule. Every kernel and every schedule must give what these give.

use super::exact::{Wide, WideF32, WideF64};
use super::value::{Value, combine, finish, node_bits, widen};
use super::{FoldStep, Node, element_bytes, fold_steps};
use crate::float::{read_bits, write_bits};
use crate::schedule::Content;
use crate::{Contract, Dtype, Order};

/// The result of a reduction: `leaves` are all leaves in order, each the bytes of a tensor.
///
/// # Panics
/// If the number of leaves is not the contract's, or their sizes differ.
///
/// ```
/// use isobit_core::law::reduce;
/// use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp};
/// let mut spec = ContractSpec::new(ReduceOp::Sum, Order::Tree, 3, Dtype::F32);
/// spec.accumulate = Some(Dtype::F32);
/// let leaves = [1e8f32, 1.0, -1e8].map(f32::to_le_bytes);
/// let leaves = leaves.each_ref().map(|leaf| leaf.as_slice());
/// let tree = Contract::new(spec).unwrap();
/// assert_eq!(reduce(&tree, &leaves), 0f32.to_le_bytes()); // (1e8 + 1) - 1e8
/// let exact = Contract::new(ContractSpec { order: Order::Exact, accumulate: None, ..spec }).unwrap();
/// assert_eq!(reduce(&exact, &leaves), 1f32.to_le_bytes());
/// ```
pub fn reduce(contract: &Contract, leaves: &[&[u8]]) -> Vec<u8> {
    let inputs: Vec<(Content, &[u8])> = (0..).map(Content::Leaf).zip(leaves.iter().copied()).collect();
    let elements = count_elements(contract, &inputs);
    let size = contract.dtype_out().size();
    let mut out = vec![0; elements * size];
    for (index, result) in out.chunks_exact_mut(size).enumerate() {
        let patterns: Vec<u64> = leaves.iter().map(|leaf| read_bits(nth(leaf, index, elements))).collect();
        write_bits(reduce_element(contract, &patterns), result);
    }
    out
}

/// The result for one element, from its bit pattern in every leaf.
///
/// # Panics
/// If the number of leaves is not the contract's.
pub fn reduce_element(contract: &Contract, leaves: &[u64]) -> u64 {
    assert_eq!(leaves.len(), contract.leaves() as usize, "the contract says how many leaves there are");
    match (contract.order(), contract.dtype_in()) {
        (Order::Tree, _) => finish(contract, value_of(contract, Node::root(contract.leaves()), leaves)),
        (Order::Exact, Dtype::F64) => exact_element(contract, leaves, WideF64::default()),
        (Order::Exact, _) => exact_element(contract, leaves, WideF32::default()),
    }
}

fn value_of(contract: &Contract, node: Node, leaves: &[u64]) -> Value {
    match node.children() {
        None => widen(contract, contract.dtype_in(), leaves[node.first() as usize]),
        Some((left, right)) => {
            combine(contract.op(), value_of(contract, left, leaves), value_of(contract, right, leaves))
        }
    }
}

fn exact_element<const LIMBS: usize, const UNIT: i32>(
    contract: &Contract,
    leaves: &[u64],
    mut sum: Wide<LIMBS, UNIT>,
) -> u64 {
    for bits in leaves {
        sum.add_leaf(contract.dtype_in(), *bits);
    }
    sum.finish(contract)
}

/// Carries out one `Reduce` of a schedule: combines `inputs`, whose contents tile `target` in
/// ascending order, into the bytes of `target`, an inner node, a wide sum or the result.
///
/// # Panics
/// If the inputs do not tile the target, or differ in length: the schedule is wrong then.
///
/// ```
/// use isobit_core::law::{Node, fold};
/// use isobit_core::schedule::Content;
/// use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp};
/// let contract = Contract::new(ContractSpec::new(ReduceOp::Sum, Order::Tree, 3, Dtype::F32)).unwrap();
/// let left = Content::Node(Node::new(0, 2, 3).unwrap());
/// let inputs: [(Content, &[u8]); 2] =
///     [(left, &3f64.to_le_bytes()), (Content::Leaf(2), &0.5f32.to_le_bytes())];
/// assert_eq!(fold(&contract, &inputs, Content::Result), 3.5f32.to_le_bytes());
/// ```
pub fn fold(contract: &Contract, inputs: &[(Content, &[u8])], target: Content) -> Vec<u8> {
    let elements = count_elements(contract, inputs);
    let size = element_bytes(target, Some(contract), contract.dtype_in());
    let mut out = vec![0; elements * size];
    match (contract.order(), contract.dtype_in()) {
        (Order::Tree, _) => fold_tree(contract, inputs, target, &mut out, elements),
        (Order::Exact, Dtype::F64) => fold_exact(contract, inputs, target, &mut out, WideF64::default()),
        (Order::Exact, _) => fold_exact(contract, inputs, target, &mut out, WideF32::default()),
    }
    out
}

fn fold_tree(
    contract: &Contract,
    inputs: &[(Content, &[u8])],
    target: Content,
    out: &mut [u8],
    elements: usize,
) {
    let node_of = |content| match content {
        Content::Leaf(leaf) => Node::leaf(leaf),
        Content::Node(node) => node,
        other => panic!("{other:?} is no input of a tree"),
    };
    let target_node = match target {
        Content::Node(node) => node,
        Content::Result => Node::root(contract.leaves()),
        other => panic!("{other:?} is no target of a tree"),
    };
    let nodes: Vec<Node> = inputs.iter().map(|(content, _)| node_of(*content)).collect();
    let steps = fold_steps(target_node, &nodes)
        .unwrap_or_else(|| panic!("{nodes:?} do not tile {target_node} in ascending order"));
    let dtypes: Vec<Dtype> =
        inputs.iter().filter_map(|(content, _)| content.dtype(Some(contract), contract.dtype_in())).collect();
    let mut stack = Vec::new();
    for index in 0..elements {
        for step in &steps {
            let value = match *step {
                FoldStep::Push(input) => {
                    widen(contract, dtypes[input], read_bits(nth(inputs[input].1, index, elements)))
                }
                FoldStep::Combine => {
                    let right = stack.pop().expect("a combination has a right side");
                    let left = stack.pop().expect("a combination has a left side");
                    combine(contract.op(), left, right)
                }
            };
            stack.push(value);
        }
        let value = stack.pop().expect("a fold leaves one value");
        let bits =
            if target == Content::Result { finish(contract, value) } else { node_bits(contract, value) };
        let size = out.len() / elements;
        write_bits(bits, &mut out[index * size..][..size]);
    }
}

fn fold_exact<const LIMBS: usize, const UNIT: i32>(
    contract: &Contract,
    inputs: &[(Content, &[u8])],
    target: Content,
    out: &mut [u8],
    none: Wide<LIMBS, UNIT>,
) {
    let leaves_of = |content| match content {
        Content::Leaf(_) => 1,
        Content::Wide(leaves) => leaves,
        other => panic!("{other:?} has no place in the exact order"),
    };
    let wanted = if target == Content::Result { contract.leaves() } else { leaves_of(target) };
    let given: u32 = inputs.iter().map(|(content, _)| leaves_of(*content)).sum();
    assert_eq!(given, wanted, "the leaves of the inputs are those of {target:?}");
    let size = element_bytes(target, Some(contract), contract.dtype_in());
    let elements = out.len() / size;
    for (index, element) in out.chunks_exact_mut(size).enumerate() {
        let mut sum = none;
        for (content, bytes) in inputs {
            let input = nth(bytes, index, elements);
            match content {
                Content::Wide(_) => sum.merge(&Wide::read(input)),
                _ => sum.add_leaf(contract.dtype_in(), read_bits(input)),
            }
        }
        match target {
            Content::Result => write_bits(sum.finish(contract), element),
            _ => sum.write(element),
        }
    }
}

/// The number of elements of each input, which must agree.
fn count_elements(contract: &Contract, inputs: &[(Content, &[u8])]) -> usize {
    let mut counts = inputs.iter().map(|(content, bytes)| {
        let size = element_bytes(*content, Some(contract), contract.dtype_in());
        assert_eq!(bytes.len() % size, 0, "{content:?} is whole elements of {size} bytes");
        bytes.len() / size
    });
    let elements = counts.next().expect("a reduction has an input");
    assert!(counts.all(|count| count == elements), "all inputs have {elements} elements");
    elements
}

/// Element `index` of a tensor of `elements` elements.
fn nth(bytes: &[u8], index: usize, elements: usize) -> &[u8] {
    let size = bytes.len() / elements;
    &bytes[index * size..][..size]
}

//! Covers: the few nodes in which a set of leaves can be combined before the rest is known.

use super::{LeafSet, Node};

/// The maximal nodes of the tree over `leaves` leaves that lie inside `set`, ascending.
///
/// Of `c` contiguous leaves there are at most `2 * ceil(log2(c / 2 + 1))`.
///
/// ```
/// use isobit_core::law::{LeafSet, Node, cover};
/// let nodes = cover(8, &LeafSet::run(1, 8));
/// assert_eq!(nodes, [Node::leaf(1), Node::new(2, 4, 8).unwrap(), Node::new(4, 8, 8).unwrap()]);
/// ```
pub fn cover(leaves: u32, set: &LeafSet) -> Vec<Node> {
    fn descend(node: Node, set: &LeafSet, into: &mut Vec<Node>) {
        if set.holds(node.first(), node.end()) {
            into.push(node);
        } else if set.meets(node.first(), node.end())
            && let Some((left, right)) = node.children()
        {
            descend(left, set, into);
            descend(right, set, into);
        }
    }
    let mut nodes = Vec::new();
    if leaves > 0 {
        descend(Node::root(leaves), set, &mut nodes);
    }
    nodes
}

/// One instruction of a fold, for a machine with a stack of values.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FoldStep {
    /// Push the value of this input.
    Push(usize),
    /// Pop two values and push their combination, the one pushed first on the left.
    Combine,
}

/// How `target` is computed from `inputs`: the tree's own shape, written in postfix.
///
/// `inputs` are nodes in ascending order that tile `target`; `None` if they do not, or if the tree
/// has no way from them to `target`.
///
/// ```
/// use isobit_core::law::{FoldStep::{Combine, Push}, Node, fold_steps};
/// let inputs = [Node::new(0, 2, 3).unwrap(), Node::leaf(2)];
/// assert_eq!(fold_steps(Node::root(3), &inputs), Some(vec![Push(0), Push(1), Combine]));
/// ```
pub fn fold_steps(target: Node, inputs: &[Node]) -> Option<Vec<FoldStep>> {
    fn descend(node: Node, inputs: &[Node], next: &mut usize, into: &mut Vec<FoldStep>) -> Option<()> {
        if inputs.get(*next) == Some(&node) {
            into.push(FoldStep::Push(*next));
            *next += 1;
            return Some(());
        }
        let (left, right) = node.children()?;
        descend(left, inputs, next, into)?;
        descend(right, inputs, next, into)?;
        into.push(FoldStep::Combine);
        Some(())
    }
    let (mut next, mut steps) = (0, Vec::with_capacity(2 * inputs.len()));
    descend(target, inputs, &mut next, &mut steps)?;
    (next == inputs.len()).then_some(steps)
}

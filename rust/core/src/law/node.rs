//! Nodes of the reduction tree, named by the leaves that they cover.
//!
//! In the left-full dyadic tree over `L` leaves a node `(j, k)` covers the leaves
//! `[k * 2^j, min((k + 1) * 2^j, L))`. A node whose right half is empty has the value of its left
//! half, so nodes that cover the same leaves have the same value, and the interval names them.

use std::fmt;

/// The node that covers the leaves `first..end`.
///
/// ```
/// use isobit_core::law::Node;
/// let root = Node::root(5);
/// let (left, right) = root.children().unwrap();
/// assert_eq!(left, Node::new(0, 4, 5).unwrap());
/// assert_eq!(right, Node::leaf(4));
/// assert_eq!(Node::new(1, 3, 5), None); // no such node: 1..3 is not dyadic
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Node {
    first: u32,
    end: u32,
}

impl Node {
    /// The root of the tree over `leaves` leaves (at least 1).
    pub fn root(leaves: u32) -> Node {
        assert!(leaves > 0, "a tree has at least one leaf");
        Node { first: 0, end: leaves }
    }

    /// The node of one leaf.
    pub fn leaf(leaf: u32) -> Node {
        Node { first: leaf, end: leaf + 1 }
    }

    /// The node that covers `first..end` in the tree over `leaves` leaves, if there is one.
    pub fn new(first: u32, end: u32, leaves: u32) -> Option<Node> {
        if first >= end || end > leaves {
            return None;
        }
        let span = u64::from(end - first).next_power_of_two();
        let aligned = u64::from(first).is_multiple_of(span);
        let full = u64::from(first) + span == u64::from(end);
        (aligned && (full || end == leaves)).then_some(Node { first, end })
    }

    /// The first leaf.
    pub fn first(self) -> u32 {
        self.first
    }

    /// One past the last leaf.
    pub fn end(self) -> u32 {
        self.end
    }

    /// The number of leaves covered.
    pub fn leaves(self) -> u32 {
        self.end - self.first
    }

    /// Whether it is a single leaf.
    pub fn is_leaf(self) -> bool {
        self.leaves() == 1
    }

    /// Whether `other` lies within it.
    pub fn contains(self, other: Node) -> bool {
        self.first <= other.first && other.end <= self.end
    }

    /// Its two halves, lower leaves first; none for a leaf.
    ///
    /// The left half is the largest power of two below the number of leaves covered.
    pub fn children(self) -> Option<(Node, Node)> {
        if self.is_leaf() {
            return None;
        }
        let middle = self.first + (1 << (self.leaves() - 1).ilog2());
        Some((Node { first: self.first, end: middle }, Node { first: middle, end: self.end }))
    }

    /// The smallest node of the tree over `leaves` leaves that holds it and more; none for the root.
    ///
    /// ```
    /// use isobit_core::law::Node;
    /// assert_eq!(Node::leaf(4).parent(5), Some(Node::root(5)));
    /// assert_eq!(Node::leaf(2).parent(5), Node::new(2, 4, 5));
    /// assert_eq!(Node::root(5).parent(5), None);
    /// ```
    pub fn parent(self, leaves: u32) -> Option<Node> {
        let mut span = u64::from(self.leaves()).next_power_of_two();
        while self.leaves() < leaves {
            span *= 2;
            let first = u64::from(self.first) / span * span;
            let end = (first + span).min(u64::from(leaves));
            let node = Node { first: u32::try_from(first).ok()?, end: u32::try_from(end).ok()? };
            if node != self {
                return Some(node);
            }
        }
        None
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.first, self.end)
    }
}

//! The vocabulary of schedules: buffers, regions, what they hold, and steps.

use crate::{Contract, Dtype, Rank, law::Node};

/// The index of a step in its rank's program.
pub type StepIndex = u32;

/// A buffer of one rank during one operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Buf {
    /// One of the rank's contributions, read only. What each holds is fixed by the request.
    Part(u32),
    /// The rank's result. It may share memory with a part, element for element.
    Out,
    /// A received message, lent by the transport until its last reader is done. Each is received
    /// once and never written again.
    View(u32),
    /// Staging of the rank's own, for partial results; `Program::slot_bytes` gives its size.
    Slot(u32),
}

/// A run of elements of a buffer, counted from that buffer's start. One of no elements names no
/// memory: its buffer need not exist.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Region {
    /// The buffer.
    pub buf: Buf,
    /// The first element.
    pub start: u64,
    /// How many elements.
    pub len: u64,
}

/// What the elements of a region are, which decides their size and how they are combined.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Content {
    /// Elements of the operation's dtype that are moved and not reduced.
    Data,
    /// One leaf, raw, in `dtype_in`.
    Leaf(u32),
    /// The value of an inner node of the tree, in `dtype_acc`.
    Node(Node),
    /// The exact sum of this many leaves, in the wide form of `law::exact`.
    Wide(u32),
    /// The finished result, in `dtype_out`.
    Result,
}

impl Content {
    /// A node's content: a leaf travels raw.
    pub fn of_node(node: Node) -> Content {
        if node.is_leaf() { Content::Leaf(node.first()) } else { Content::Node(node) }
    }
}

/// An input of a reduction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Operand {
    /// Where it is.
    pub region: Region,
    /// What it is.
    pub content: Content,
}

/// What a step does.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Sends the elements to a rank. Complete when the receiver has verified them; until then the
    /// elements must not change.
    Send {
        /// The receiver.
        to: Rank,
        /// What to send.
        src: Region,
        /// What it is.
        content: Content,
    },
    /// Receives from a rank: into a fresh view, or into `Out` or a slot.
    Recv {
        /// The sender.
        from: Rank,
        /// Where to.
        dst: Region,
        /// What it is.
        content: Content,
    },
    /// Computes `target` from the inputs, whose contents tile it in ascending order.
    Reduce {
        /// The operands, all of the same length.
        inputs: Vec<Operand>,
        /// `Node`, `Wide` or `Result`.
        target: Content,
        /// Where to: a slot or `Out`.
        out: Region,
    },
    /// Copies elements within the rank.
    Copy {
        /// Where from.
        src: Region,
        /// Where to: a slot or `Out`.
        dst: Region,
        /// What they are.
        content: Content,
    },
}

/// A step and what it waits for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Step {
    /// What to do.
    pub action: Action,
    /// Earlier steps of this rank that must be complete first. Besides these, messages of one pair
    /// of ranks start in program order.
    pub after: Vec<StepIndex>,
}

/// One rank's part of a schedule.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Program {
    /// The steps, each after all that it waits for.
    pub steps: Vec<Step>,
    /// How many views there are.
    pub views: u32,
    /// The size in bytes of each slot.
    pub slot_bytes: Vec<u64>,
}

/// The programs of all ranks.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Schedule {
    /// The program of each rank.
    pub programs: Vec<Program>,
}

impl Content {
    /// The dtype of an element, where it has one (`Wide` has not).
    ///
    /// `contract` is that of the reduction; `dtype` that of moved data.
    pub fn dtype(self, contract: Option<&Contract>, dtype: Dtype) -> Option<Dtype> {
        match (self, contract) {
            (Content::Wide(_), _) => None,
            (Content::Data, _) | (_, None) => Some(dtype),
            (Content::Leaf(_), Some(contract)) => Some(contract.dtype_in()),
            (Content::Node(_), Some(contract)) => contract.dtype_acc(),
            (Content::Result, Some(contract)) => Some(contract.dtype_out()),
        }
    }
}

//! From the law's fold program to a few loops over blocks: which inputs one loop combines in
//! registers, and in which slots the rest waits.

use isobit_core::law::FoldStep;

/// One loop over a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pass {
    /// Slot `to` becomes the left-full tree over `count` inputs from `first` on.
    Gather { first: usize, count: usize, to: usize },
    /// Slot `to` is combined with input `input`.
    CombineInput { input: usize, to: usize },
    /// Slot `to` is combined with slot `from`.
    CombineSlot { from: usize, to: usize },
}

/// The passes whose last one leaves the result in slot 0, and how many slots they need.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) passes: Vec<Pass>,
    pub(super) slots: usize,
}

/// A value during compilation: inputs that no pass has touched yet, or a slot.
#[derive(Clone, Copy)]
enum Pending {
    Inputs { first: usize, count: usize },
    Slot(usize),
}

struct Compiler {
    passes: Vec<Pass>,
    free: Vec<usize>,
    slots: usize,
}

impl Compiler {
    fn slot_of(&mut self, value: Pending) -> usize {
        match value {
            Pending::Slot(slot) => slot,
            Pending::Inputs { first, count } => {
                let to = self.free.pop().unwrap_or_else(|| {
                    self.slots += 1;
                    self.slots - 1
                });
                self.passes.push(Pass::Gather { first, count, to });
                to
            }
        }
    }

    /// Combining commutes bit for bit: a NaN's payload, which alone depends on the order, is
    /// replaced wherever a value leaves the kernels.
    fn combine(&mut self, left: Pending, right: Pending) -> usize {
        match (left, right) {
            (Pending::Slot(to), Pending::Inputs { first: input, count: 1 })
            | (Pending::Inputs { first: input, count: 1 }, Pending::Slot(to)) => {
                self.passes.push(Pass::CombineInput { input, to });
                to
            }
            (gathered @ Pending::Inputs { .. }, Pending::Inputs { first: input, count: 1 })
            | (Pending::Inputs { first: input, count: 1 }, gathered @ Pending::Inputs { .. }) => {
                let to = self.slot_of(gathered);
                self.passes.push(Pass::CombineInput { input, to });
                to
            }
            _ => {
                let (to, from) = (self.slot_of(left), self.slot_of(right));
                self.passes.push(Pass::CombineSlot { from, to });
                self.free.push(from);
                to
            }
        }
    }
}

impl Program {
    /// Compiles `steps` over inputs of which `is_leaf` tells the leaves, `width` at most to a loop.
    pub(super) fn new(steps: &[FoldStep], is_leaf: impl Fn(usize) -> bool, width: usize) -> Program {
        let mut compiler = Compiler { passes: Vec::with_capacity(steps.len()), free: Vec::new(), slots: 0 };
        let mut stack: Vec<Pending> = Vec::with_capacity(steps.len());
        for step in steps {
            match *step {
                FoldStep::Push(first) => stack.push(Pending::Inputs { first, count: 1 }),
                FoldStep::Combine => {
                    let right = stack.pop().expect("fold programs are balanced");
                    let left = stack.pop().expect("fold programs are balanced");
                    stack.push(match (left, right) {
                        // The left-full tree over n has the largest power of two below n on its left.
                        (
                            Pending::Inputs { first, count: a },
                            Pending::Inputs { first: second, count: b },
                        ) if a.is_power_of_two()
                            && b <= a
                            && a + b <= width
                            && is_leaf(first) == is_leaf(second) =>
                        {
                            Pending::Inputs { first, count: a + b }
                        }
                        _ => Pending::Slot(compiler.combine(left, right)),
                    });
                }
            }
        }
        let result = stack.pop().expect("a fold has a result");
        let result = compiler.slot_of(result);
        if result != 0 {
            compiler.swap_with_first(result);
        }
        Program { passes: compiler.passes, slots: compiler.slots }
    }
}

impl Compiler {
    /// Renames slots so that the result is in slot 0.
    fn swap_with_first(&mut self, result: usize) {
        let rename = |slot: usize| match slot {
            0 => result,
            slot if slot == result => 0,
            slot => slot,
        };
        for pass in &mut self.passes {
            *pass = match *pass {
                Pass::Gather { first, count, to } => Pass::Gather { first, count, to: rename(to) },
                Pass::CombineInput { input, to } => Pass::CombineInput { input, to: rename(to) },
                Pass::CombineSlot { from, to } => Pass::CombineSlot { from: rename(from), to: rename(to) },
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isobit_core::law::{Node, fold_steps};

    fn passes(leaves: u32, width: usize) -> Vec<Pass> {
        let inputs: Vec<Node> = (0..leaves).map(Node::leaf).collect();
        let steps = fold_steps(Node::root(leaves), &inputs).unwrap();
        Program::new(&steps, |_| true, width).passes
    }

    #[test]
    fn a_subtree_of_up_to_eight_leaves_is_one_pass() {
        for leaves in 1..=8 {
            assert_eq!(passes(leaves, 8), [Pass::Gather { first: 0, count: leaves as usize, to: 0 }]);
        }
        assert_eq!(
            passes(17, 8),
            [
                Pass::Gather { first: 0, count: 8, to: 0 },
                Pass::Gather { first: 8, count: 8, to: 1 },
                Pass::CombineSlot { from: 1, to: 0 },
                Pass::CombineInput { input: 16, to: 0 },
            ]
        );
    }

    #[test]
    fn slots_are_reused() {
        let inputs: Vec<Node> = (0..4096).map(Node::leaf).collect();
        let steps = fold_steps(Node::root(4096), &inputs).unwrap();
        assert!(Program::new(&steps, |_| true, 8).slots <= 11);
    }
}

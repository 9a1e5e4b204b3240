//! Four leaves and the nodes beside them give the law's node, on every instruction set.

mod reduce_support;

use isobit_core::law::Node;
use isobit_core::schedule::Content;
use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp};
use reduce_support::{Rng, Values, check, tensor};

/// What an accumulation does: the leaves come last, first or between nodes.
#[test]
fn four_leaves_beside_nodes_give_the_laws_bits() {
    let mut rng = Rng(13);
    let runs: [&[(u32, u32)]; 8] = [
        &[(0, 4)],
        &[(0, 4), (4, 8)],
        &[(0, 8), (8, 12), (12, 16)],
        &[(0, 16), (16, 24), (24, 28), (28, 32)],
        &[(0, 4), (4, 8), (8, 16), (16, 32)],
        &[(0, 8), (8, 12), (12, 16), (16, 32)],
        &[(0, 32), (32, 48), (48, 56), (56, 60), (60, 64)],
        &[(0, 64), (64, 96), (96, 112), (112, 120), (120, 124), (124, 128)],
    ];
    for (dtype, op, accumulate) in [
        (Dtype::F32, ReduceOp::Sum, None),
        (Dtype::F32, ReduceOp::Mean, Some(Dtype::F32)),
        (Dtype::Bf16, ReduceOp::Mean, None),
        (Dtype::Bf16, ReduceOp::Sum, Some(Dtype::F64)),
        (Dtype::F32, ReduceOp::Prod, None),
        (Dtype::I32, ReduceOp::Sum, None),
    ] {
        let spec = ContractSpec { accumulate, ..ContractSpec::new(op, Order::Tree, 256, dtype) };
        let contract = Contract::new(spec).unwrap();
        for (run, leaves) in runs.iter().flat_map(|run| (0..run.len()).map(move |leaves| (run, leaves))) {
            let end = run.last().unwrap().1;
            let target = Content::of_node(Node::new(0, end, 256).unwrap());
            if run[leaves].1 - run[leaves].0 != 4 {
                continue;
            }
            for (len, values) in
                [(1, Values::Any), (37, Values::Special), (600, Values::Spread), (1031, Values::Special)]
            {
                let inputs: Vec<_> = run
                    .iter()
                    .enumerate()
                    .flat_map(|(place, &(first, end))| {
                        let node = Content::of_node(Node::new(first, end, 256).unwrap());
                        if place == leaves { (first..end).map(Content::Leaf).collect() } else { vec![node] }
                    })
                    .map(|content| {
                        let dtype = content.dtype(Some(&contract), dtype).unwrap();
                        (content, tensor(dtype, len, values, &mut rng))
                    })
                    .collect();
                check(&contract, &inputs, target);
            }
        }
    }
}

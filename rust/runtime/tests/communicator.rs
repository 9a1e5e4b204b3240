//! The collectives of a group on threads, against the law and against each other.

mod common;

use common::{calling, leaf, on_ranks};
use isobit::{Contract, ContractSpec, Dtype, Order, ReduceOp, Reduction, law};

const WORLD_SIZES: [u32; 7] = [1, 2, 3, 4, 5, 7, 8];
/// Nothing, one element, less than a rank each, several messages a rank.
const COUNTS: [u64; 5] = [0, 1, 5, 1000, 70_001];

fn contract(reduction: &Reduction, leaves: u32) -> Contract {
    let Reduction { op, order, dtype, accumulate, out_dtype, divisor } = *reduction;
    Contract::new(ContractSpec { op, order, leaves, dtype, accumulate, out_dtype, divisor }).unwrap()
}

/// What the law says of `leaves` whole leaves.
fn truth(reduction: &Reduction, leaves: u32, count: u64) -> Vec<u8> {
    let leaves_bytes: Vec<Vec<u8>> = (0..leaves).map(|l| leaf(reduction.dtype, l, count)).collect();
    let slices: Vec<&[u8]> = leaves_bytes.iter().map(Vec::as_slice).collect();
    law::reduce(&contract(reduction, leaves), &slices)
}

fn reductions() -> Vec<Reduction> {
    let sum = |dtype| Reduction::new(ReduceOp::Sum, dtype);
    let exact = |dtype| Reduction { order: Order::Exact, ..sum(dtype) };
    vec![
        sum(Dtype::F32),
        sum(Dtype::F64),
        sum(Dtype::I64),
        Reduction { op: ReduceOp::Mean, ..sum(Dtype::F16) },
        Reduction { out_dtype: Some(Dtype::F32), ..sum(Dtype::Bf16) },
        Reduction { accumulate: Some(Dtype::F32), op: ReduceOp::Mean, divisor: Some(3), ..sum(Dtype::F32) },
        Reduction::new(ReduceOp::Max, Dtype::F32),
        Reduction::new(ReduceOp::Bxor, Dtype::Bool),
        Reduction::new(ReduceOp::Prod, Dtype::F8E5m2),
        exact(Dtype::F32),
        Reduction { op: ReduceOp::Mean, ..exact(Dtype::Bf16) },
        exact(Dtype::F64),
    ]
}

#[test]
fn all_reduce_gives_every_rank_the_bits_of_the_law() {
    for world_size in WORLD_SIZES {
        for reduction in reductions() {
            for count in COUNTS {
                let expected = truth(&reduction, world_size, count);
                let results = on_ranks(world_size, |comm| {
                    let input = leaf(reduction.dtype, comm.rank(), count);
                    let mut out = vec![0xaa; expected.len()];
                    calling(&[count], |call| {
                        comm.all_reduce(input.as_slice().into(), out.as_mut_slice().into(), &reduction, call)
                    })
                    .unwrap();
                    out
                });
                for (rank, result) in results.iter().enumerate() {
                    assert!(
                        *result == expected,
                        "{reduction:?}, rank {rank} of {world_size}, {count} elements"
                    );
                }
            }
        }
    }
}

#[test]
fn all_reduce_in_place_equals_all_reduce_out_of_place() {
    let reduction = Reduction::new(ReduceOp::Sum, Dtype::F32);
    for world_size in WORLD_SIZES {
        let expected = truth(&reduction, world_size, 70_001);
        let results = on_ranks(world_size, |comm| {
            let mut tensor = leaf(Dtype::F32, comm.rank(), 70_001);
            let span = isobit::WriteSpan::from(tensor.as_mut_slice());
            calling(&[70_001], |call| comm.all_reduce(span.into(), span, &reduction, call)).unwrap();
            tensor
        });
        assert!(results.iter().all(|result| *result == expected), "{world_size} ranks");
    }
}

#[test]
fn all_reduce_equals_all_gather_of_reduce_scatter_equals_broadcast_of_reduce() {
    for world_size in WORLD_SIZES {
        for reduction in reductions() {
            let count = 2 * 3 * 4 * 5 * 7 * 20;
            let expected = truth(&reduction, world_size, count);
            let out_dtype = reduction.out_dtype.unwrap_or(reduction.dtype);
            let results = on_ranks(world_size, |comm| {
                let input = leaf(reduction.dtype, comm.rank(), count);
                let mut block = vec![0; expected.len() / world_size as usize];
                let mut gathered = vec![0; expected.len()];
                let mut sent = vec![0; expected.len()];
                let root = world_size - 1;
                calling(&[count], |call| {
                    comm.reduce_scatter(
                        input.as_slice().into(),
                        block.as_mut_slice().into(),
                        &reduction,
                        None,
                        call,
                    )?;
                    comm.all_gather(
                        block.as_slice().into(),
                        gathered.as_mut_slice().into(),
                        out_dtype,
                        None,
                        call,
                    )?;
                    let out = (comm.rank() == root).then(|| sent.as_mut_slice().into());
                    comm.reduce(input.as_slice().into(), out, &reduction, root, call)?;
                    comm.broadcast(sent.as_mut_slice().into(), out_dtype, root, call)
                })
                .unwrap();
                (gathered, sent)
            });
            for (gathered, sent) in results {
                assert!(gathered == expected && sent == expected, "{reduction:?} on {world_size} ranks");
            }
        }
    }
}

#[test]
fn accumulated_leaves_give_the_same_bits_on_every_number_of_ranks_and_in_every_order() {
    for reduction in reductions() {
        if !matches!(reduction.op, ReduceOp::Sum | ReduceOp::Mean) || !reduction.dtype.is_float() {
            continue;
        }
        for leaves in [1, 5, 24, 60] {
            let count = 333;
            let expected = truth(&reduction, leaves, count);
            for world_size in WORLD_SIZES {
                let results = on_ranks(world_size, |comm| {
                    let mut sum = comm.accumulator(&reduction, leaves, count).unwrap();
                    let mut owned: Vec<u32> = sum.leaves().iter().collect();
                    let stride = 1 + comm.rank() as usize % 3;
                    owned.sort_by_key(|leaf| (*leaf as usize * 7 + 3) % (5 + stride));
                    for number in owned {
                        sum.add(number, leaf(reduction.dtype, number, count).as_slice().into()).unwrap();
                    }
                    let mut out = vec![0; expected.len()];
                    calling(&[count], |call| {
                        let span = out.as_mut_slice().into();
                        comm.accumulated_all_reduce(sum, reduction.op, reduction.divisor, span, call)
                    })
                    .unwrap();
                    out
                });
                let same = results.iter().all(|result| *result == expected);
                assert!(same, "{reduction:?}, {leaves} leaves on {world_size} ranks");
            }
        }
    }
}

#[test]
fn movement_puts_every_element_where_it_belongs() {
    for world_size in WORLD_SIZES {
        let counts: Vec<u64> = (0..u64::from(world_size)).map(|rank| (rank * 7919) % 40_000).collect();
        let total: u64 = counts.iter().sum();
        let blocks: Vec<Vec<u8>> = (0..world_size).map(|r| leaf(Dtype::U32, r, counts[r as usize])).collect();
        let all = blocks.concat();
        on_ranks(world_size, |comm| {
            let (rank, root) = (comm.rank() as usize, world_size / 2);
            let is_root = comm.rank() == root;
            let mut gathered = vec![0; total as usize * 4];
            let mut at_root = vec![0; total as usize * 4];
            let mut block = vec![0; blocks[rank].len()];
            calling(&[], |call| {
                let counts = Some(counts.as_slice());
                let (own, dtype) = (blocks[rank].as_slice(), Dtype::U32);
                comm.all_gather(own.into(), gathered.as_mut_slice().into(), dtype, counts, call)?;
                let out = is_root.then(|| at_root.as_mut_slice().into());
                comm.gather(own.into(), out, dtype, root, counts, call)?;
                let input = is_root.then(|| all.as_slice().into());
                comm.scatter(input, block.as_mut_slice().into(), dtype, root, counts, call)?;
                comm.barrier(call)
            })
            .unwrap();
            assert!(gathered == all && block == blocks[rank]);
            assert!(!is_root || at_root == all);
        });
    }
}

#[test]
fn all_to_all_moves_sparse_and_uneven_blocks() {
    for world_size in WORLD_SIZES {
        let n = u64::from(world_size);
        let between = move |from: u64, to: u64| {
            if (from + 2 * to).is_multiple_of(3) { (from * 31 + to * 977) % 9000 } else { 0 }
        };
        let block =
            |from: u64, to: u64| leaf(Dtype::I16, u32::try_from(from * n + to).unwrap(), between(from, to));
        on_ranks(world_size, |comm| {
            let rank = u64::from(comm.rank());
            let send: Vec<u64> = (0..n).map(|to| between(rank, to)).collect();
            let recv: Vec<u64> = (0..n).map(|from| between(from, rank)).collect();
            let input: Vec<u8> = (0..n).flat_map(|to| block(rank, to)).collect();
            let expected: Vec<u8> = (0..n).flat_map(|from| block(from, rank)).collect();
            let mut out = vec![0; expected.len()];
            calling(&[], |call| {
                let (input, out) = (input.as_slice().into(), out.as_mut_slice().into());
                comm.all_to_all(input, out, Dtype::I16, Some(&send), Some(&recv), call)
            })
            .unwrap();
            assert!(out == expected);
        });
    }
}

#[test]
fn two_ranks_that_both_send_first_and_receive_then_get_on() {
    for count in [1, 1_000_000] {
        on_ranks(2, |comm| {
            let peer = 1 - comm.rank();
            let input = leaf(Dtype::F32, comm.rank(), count);
            let mut out = vec![0; input.len()];
            calling(&[count], |call| {
                comm.send(input.as_slice().into(), Dtype::F32, peer, 0, call)?;
                comm.recv(out.as_mut_slice().into(), Dtype::F32, peer, 0, call)
            })
            .unwrap();
            assert!(out == leaf(Dtype::F32, peer, count));
        });
    }
}

#[test]
fn operations_on_nothing_meet_and_give_nothing() {
    let sum = Reduction::new(ReduceOp::Sum, Dtype::F32);
    for world_size in WORLD_SIZES {
        on_ranks(world_size, |comm| {
            let is_root = comm.rank() == 0;
            calling(&[0], |call| {
                let mut nothing = [];
                let out = isobit::WriteSpan::from(&mut nothing[..]);
                comm.all_reduce(out.into(), out, &sum, call)?;
                comm.reduce(out.into(), is_root.then_some(out), &sum, 0, call)?;
                comm.reduce_scatter(out.into(), out, &sum, None, call)?;
                comm.broadcast(out, Dtype::F32, 0, call)?;
                comm.all_gather(out.into(), out, Dtype::F32, None, call)?;
                comm.gather(out.into(), is_root.then_some(out), Dtype::F32, 0, None, call)?;
                comm.scatter(is_root.then_some(out.into()), out, Dtype::F32, 0, None, call)?;
                comm.all_to_all(out.into(), out, Dtype::F32, None, None, call)
            })
            .unwrap();
        });
    }
}

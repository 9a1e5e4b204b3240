//! Calls that do not fit together: who is told what.

mod common;

use std::time::Duration;

use common::{calling, leaf, on_ranks};
use isobit::{Call, Communicator, Dtype, Error, ErrorKind, Order, ReduceOp, Reduction};

fn all_reduce(
    comm: &mut Communicator,
    reduction: &Reduction,
    count: u64,
    shape: &[u64],
) -> Result<(), Error> {
    let mut tensor = leaf(reduction.dtype, comm.rank(), count);
    let span = isobit::WriteSpan::from(tensor.as_mut_slice());
    calling(shape, |call| comm.all_reduce(span.into(), span, reduction, call))
}

/// Every rank fails with `kind`, and its message has `words`.
fn all_fail(results: Vec<Result<(), Error>>, kind: ErrorKind, words: &[&str]) {
    for (rank, result) in results.into_iter().enumerate() {
        let error = result.expect_err("this rank fails, too");
        assert_eq!(error.kind, kind, "rank {rank}: {error}");
        for word in words {
            assert!(error.to_string().contains(word), "rank {rank}: '{word}' is not in: {error}");
        }
    }
}

#[test]
fn another_shape_of_the_same_size_is_a_desync_on_every_rank() {
    let sum = Reduction::new(ReduceOp::Sum, Dtype::F32);
    let results = on_ranks(3, |comm| {
        let shape = if comm.rank() == 2 { [10, 20] } else { [20, 10] };
        all_reduce(comm, &sum, 200, &shape)
    });
    all_fail(results, ErrorKind::Desync, &["shape is ", "(20, 10) on rank ", "(10, 20) on rank 2"]);
}

#[test]
fn another_contract_is_a_contract_mismatch_that_names_the_field() {
    let sum = Reduction::new(ReduceOp::Sum, Dtype::F32);
    let others = [
        (Reduction { op: ReduceOp::Max, ..sum }, "op"),
        (Reduction { order: Order::Exact, ..sum }, "order"),
        (Reduction { accumulate: Some(Dtype::F32), ..sum }, "accumulate"),
        (Reduction { dtype: Dtype::I32, ..sum }, "dtype"),
    ];
    for (other, field) in others {
        let results =
            on_ranks(2, |comm| all_reduce(comm, if comm.rank() == 0 { &sum } else { &other }, 8, &[8]));
        all_fail(results, ErrorKind::ContractMismatch, &[field]);
    }
}

#[test]
fn a_send_under_another_tag_or_of_another_count_fails_in_that_very_call() {
    for count in [2, 100_000] {
        let results = on_ranks(2, |comm| {
            for round in 0..100 {
                let mut tensor = leaf(Dtype::F32, 0, count + round % 2 * u64::from(comm.rank()));
                let shape = [tensor.len() as u64 / 4];
                let error = calling(&shape, |call| match comm.rank() {
                    0 => comm.send(tensor.as_slice().into(), Dtype::F32, 1, 4, call),
                    _ => comm.recv(tensor.as_mut_slice().into(), Dtype::F32, 0, 5 - round % 2, call),
                });
                let error = error.expect_err("they differ");
                assert_eq!(error.kind, ErrorKind::Desync, "round {round}: {error}");
            }
        });
        assert_eq!(results.len(), 2);
    }
}

#[test]
fn ranks_that_wait_for_each_other_in_different_calls_find_out_before_their_deadline() {
    let results = on_ranks(2, |comm| {
        let block = [7; 4];
        let (mut out, mut buffer) = ([0; 8], [0; 4]);
        calling(&[1], |call| match comm.rank() {
            0 => comm.gather((&block[..]).into(), Some((&mut out[..]).into()), Dtype::F32, 0, None, call),
            _ => comm.broadcast((&mut buffer[..]).into(), Dtype::F32, 0, call),
        })
    });
    all_fail(results, ErrorKind::Desync, &["gather", "broadcast"]);
}

#[test]
fn ranks_that_only_send_in_different_calls_find_out_before_their_deadline() {
    let results = on_ranks(2, |comm| {
        let block = [7; 4];
        let mut buffer = [0; 4];
        calling(&[1], |call| {
            match comm.rank() {
                1 => comm.gather((&block[..]).into(), None, Dtype::F32, 0, None, call)?,
                _ => comm.broadcast((&mut buffer[..]).into(), Dtype::F32, 0, call)?,
            }
            // A send is done when its bytes have arrived: its sender may be told at the next call.
            comm.barrier(call)
        })
    });
    all_fail(results, ErrorKind::Desync, &["gather", "broadcast"]);
}

#[test]
fn a_zero_length_tensor_on_one_rank_only_is_a_desync() {
    let sum = Reduction::new(ReduceOp::Sum, Dtype::F32);
    let results = on_ranks(4, |comm| {
        let count = if comm.rank() == 1 { 0 } else { 5 };
        all_reduce(comm, &sum, count, &[count])
    });
    all_fail(results, ErrorKind::Desync, &["count", "rank 1"]);
}

#[test]
fn a_rank_that_does_not_call_is_a_timeout_that_names_it() {
    let sum = Reduction::new(ReduceOp::Sum, Dtype::F32);
    let (done, wait) = std::sync::mpsc::channel();
    let wait = std::sync::Mutex::new(wait);
    let results = on_ranks(3, |comm| {
        if comm.rank() == 1 {
            for _ in 0..2 {
                wait.lock().unwrap().recv().unwrap();
            }
            return all_reduce(comm, &sum, 1, &[1]);
        }
        comm.set_timeout(Duration::from_millis(120));
        let result = all_reduce(comm, &sum, 1, &[1]);
        done.send(()).unwrap();
        result
    });
    for (rank, result) in results.into_iter().enumerate() {
        let error = result.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
        assert!(error.to_string().contains("no answer from rank 1"), "rank {rank}: {error}");
    }
}

#[test]
fn a_rank_that_leaves_is_lost_to_those_who_wait_for_it() {
    let sum = Reduction::new(ReduceOp::Sum, Dtype::F32);
    let results = on_ranks(3, |comm| {
        if comm.rank() == 2 {
            return Ok(());
        }
        all_reduce(comm, &sum, 1, &[1])
    });
    for result in &results[..2] {
        let error = result.clone().unwrap_err();
        assert_eq!((error.kind, error.peer), (ErrorKind::PeerLost, Some(2)), "{error}");
    }
}

#[test]
fn an_interrupted_rank_ends_the_others_calls() {
    let sum = Reduction::new(ReduceOp::Sum, Dtype::F32);
    let results = on_ranks(3, |comm| {
        let mut tensor = [0; 4];
        let span = isobit::WriteSpan::from(&mut tensor[..]);
        let interrupted = comm.rank() == 0;
        if comm.rank() == 1 {
            let mut nothing = [0; 4];
            return calling(&[1], |call| comm.recv((&mut nothing[..]).into(), Dtype::F32, 2, 0, call));
        }
        comm.all_reduce(
            span.into(),
            span,
            &sum,
            &mut Call { shape: &[1], timeout: None, interrupt: &mut || interrupted },
        )
    });
    let kinds: Vec<ErrorKind> = results.iter().map(|result| result.clone().unwrap_err().kind).collect();
    assert_eq!(kinds, [ErrorKind::Interrupted, ErrorKind::Aborted, ErrorKind::Aborted]);
    assert!(results[2].clone().unwrap_err().to_string().contains("interrupted by the caller on rank 0"));
}

#[test]
fn after_an_abort_every_call_gives_its_reason() {
    let sum = Reduction::new(ReduceOp::Sum, Dtype::F32);
    let results = on_ranks(2, |comm| {
        if comm.rank() == 0 {
            comm.abort("the loss is NaN");
        }
        let first = all_reduce(comm, &sum, 3, &[3]);
        assert_eq!(first.clone().unwrap_err().kind, all_reduce(comm, &sum, 3, &[3]).unwrap_err().kind);
        first
    });
    all_fail(results, ErrorKind::Aborted, &["the loss is NaN"]);
}

#[test]
fn a_call_that_is_refused_on_one_rank_fails_on_all_and_the_group_goes_on() {
    let sum = Reduction::new(ReduceOp::Sum, Dtype::F32);
    on_ranks(3, |comm| {
        all_reduce(comm, &sum, 4, &[4]).unwrap();
        let bitwise = Reduction { op: ReduceOp::Band, ..sum };
        let error = all_reduce(comm, if comm.rank() == 1 { &bitwise } else { &sum }, 4, &[4]).unwrap_err();
        if comm.rank() == 1 {
            assert_eq!(error.kind, ErrorKind::Value, "{error}");
        } else {
            assert_eq!((error.kind, error.sequence), (ErrorKind::RemoteArgument, Some(1)), "{error}");
            assert!(
                error.to_string().contains("rank 1 failed") && error.to_string().contains("bitwise"),
                "{error}"
            );
        }
        assert_eq!(comm.epoch(), 1);
        all_reduce(comm, &sum, 4, &[4]).unwrap();
    });
}

#[test]
fn a_rank_that_is_late_fails_once_for_each_call_that_was_refused_meanwhile() {
    const REFUSED: u32 = 3;
    let sum = Reduction::new(ReduceOp::Sum, Dtype::F32);
    let bitwise = Reduction { op: ReduceOp::Band, ..sum };
    let refused = std::sync::Barrier::new(2);
    on_ranks(2, |comm| {
        // Rank 1 is done with its refused calls before rank 0 makes the first of its own.
        if comm.rank() == 0 {
            refused.wait();
        }
        for call in 0..REFUSED {
            let own = if comm.rank() == 1 { &bitwise } else { &sum };
            let error = all_reduce(comm, own, 4, &[4]).unwrap_err();
            let kind = if comm.rank() == 1 { ErrorKind::Value } else { ErrorKind::RemoteArgument };
            assert_eq!(error.kind, kind, "call {call}: {error}");
            assert_eq!(comm.epoch(), call + 1);
        }
        if comm.rank() == 1 {
            refused.wait();
        }
        all_reduce(comm, &sum, 4, &[4]).unwrap();
        all_reduce(comm, &sum, 9, &[9]).unwrap();
    });
}

#[test]
fn wrong_arguments_say_what_is_right() {
    let mut comm = Communicator::solo();
    let odd = calling(&[], |call| comm.broadcast((&mut [0; 7][..]).into(), Dtype::F32, 0, call));
    assert!(odd.unwrap_err().is_harmless());
    let nobody = calling(&[], |call| comm.broadcast((&mut [0; 8][..]).into(), Dtype::F32, 1, call));
    assert!(nobody.unwrap_err().to_string().contains("ranks are 0 to 0"));
}

#[test]
fn after_a_desync_tensors_hold_their_old_bits_and_the_group_goes_on() {
    let sum = Reduction::new(ReduceOp::Sum, Dtype::F32);
    for world_size in [2, 3, 5] {
        for count in [3, 100_000] {
            on_ranks(world_size, |comm| {
                for round in 0..20 {
                    let odd = round % world_size == comm.rank();
                    let mut tensor = leaf(Dtype::F32, comm.rank(), count);
                    let span = isobit::WriteSpan::from(tensor.as_mut_slice());
                    let shape = [if odd { 1 } else { count }, if odd { count } else { 1 }];
                    let error =
                        calling(&shape, |call| comm.all_reduce(span.into(), span, &sum, call)).unwrap_err();
                    assert_eq!(error.kind, ErrorKind::Desync, "{error}");
                    assert!(
                        tensor == leaf(Dtype::F32, comm.rank(), count),
                        "rank {} in {round}",
                        comm.rank()
                    );
                    all_reduce(comm, &sum, count, &[count]).unwrap();
                }
                assert_eq!(comm.epoch(), 20);
            });
        }
    }
}

#[test]
fn a_rank_that_is_ahead_of_a_failed_call_completes_what_came_before() {
    let sum = Reduction::new(ReduceOp::Sum, Dtype::F32);
    on_ranks(4, |comm| {
        for _ in 0..50 {
            calling(&[], |call| comm.broadcast((&mut [1; 400][..]).into(), Dtype::F32, 0, call)).unwrap();
            calling(&[], |call| comm.barrier(call)).unwrap();
            let shape = [u64::from(comm.rank() == 2)];
            let error = all_reduce(comm, &sum, 5, &shape).unwrap_err();
            assert_eq!((error.kind, error.sequence), (ErrorKind::Desync, Some(2)), "{error}");
        }
    });
}

/// What one call was checked for is not taken for checked in another that only looks like it.
#[test]
fn what_was_right_with_counts_is_refused_without_them() {
    let sum = Reduction::new(ReduceOp::Sum, Dtype::F32);
    let results = on_ranks(2, |comm| {
        let counts = [1, 3];
        let tensor = leaf(Dtype::F32, comm.rank(), 4);
        let mut out = vec![0; 4 * counts[comm.rank() as usize] as usize];
        for counts in [Some(&counts[..]), None] {
            let out = isobit::WriteSpan::from(out.as_mut_slice());
            let result =
                calling(&[4], |call| comm.reduce_scatter(tensor.as_slice().into(), out, &sum, counts, call));
            if counts.is_none() {
                return result;
            }
            result.unwrap();
        }
        unreachable!("the second call has no counts")
    });
    for (rank, result) in results.into_iter().enumerate() {
        let error = result.expect_err("it fits neither rank");
        assert!(matches!(error.kind, ErrorKind::Value | ErrorKind::RemoteArgument), "rank {rank}: {error}");
        assert!(error.to_string().contains("2 elements of f32 are needed"), "rank {rank}: {error}");
    }
}

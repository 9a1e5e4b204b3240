//! What a communicator remembers of its operations, and what errors say of where they were called.

mod common;

use common::{calling, on_ranks};
use isobit::wire::Collective;
use isobit::{Communicator, Dtype, Error, ErrorKind, OperationState, ReduceOp, Reduction, Site};
use std::time::Duration;

fn barrier(comm: &mut Communicator) -> Result<(), Error> {
    calling(&[], |call| comm.barrier(call))
}

fn all_reduce(comm: &mut Communicator, op: ReduceOp) -> Result<(), Error> {
    let mut tensor = [0; 8];
    let span = isobit::WriteSpan::from(&mut tensor[..]);
    calling(&[2], |call| comm.all_reduce(span.into(), span, &Reduction::new(op, Dtype::F32), call))
}

#[test]
fn operations_are_recorded_with_what_became_of_them() {
    let all = on_ranks(2, |comm| {
        comm.call_from(Site::of("train.py", 3));
        barrier(comm).unwrap();
        let op = if comm.rank() == 0 { ReduceOp::Sum } else { ReduceOp::Max };
        all_reduce(comm, op).unwrap_err();
        barrier(comm).unwrap();
        comm.flight_recorder().records()
    });
    for (rank, records) in all.into_iter().enumerate() {
        let [first, second, third] = records[..] else { panic!("rank {rank}: {records:?}") };
        assert_eq!(first.descriptor.collective, Collective::Barrier);
        assert_eq!((first.epoch, first.sequence, first.state), (0, 0, OperationState::Completed));
        assert_eq!(first.site, Site::of("train.py", 3));
        assert!(first.end_ns.unwrap() >= first.start_ns);
        assert_eq!((second.descriptor.collective, second.bytes), (Collective::AllReduce, 8));
        assert_eq!(second.state, OperationState::Failed(ErrorKind::ContractMismatch));
        assert_eq!((third.epoch, third.sequence), (1, 0), "the group has started afresh");
        assert!(second.start_ns >= first.end_ns.unwrap(), "one after the other");
    }
}

#[test]
fn a_mismatch_names_both_call_sites_on_every_rank() {
    let results = on_ranks(3, |comm| {
        let odd = comm.rank() == 1;
        comm.call_from(Site::of("train.py", if odd { 71 } else { 64 }));
        all_reduce(comm, if odd { ReduceOp::Max } else { ReduceOp::Sum })
    });
    for result in results {
        let text = result.unwrap_err().to_string();
        assert!(text.contains("at train.py:71 on rank 1"), "{text}");
        assert!(text.contains("at train.py:64 on rank "), "{text}");
    }
}

#[test]
fn a_past_call_is_named_by_its_own_site_and_not_by_the_present_one() {
    let results = on_ranks(2, |comm| {
        let mut buffer = [0; 4];
        calling(&[1], |call| match comm.rank() {
            0 => {
                comm.call_from(Site::of("early.py", 1));
                barrier(comm)?;
                comm.call_from(Site::of("late.py", 2));
                comm.broadcast((&mut buffer[..]).into(), Dtype::F32, 0, call)
            }
            _ => {
                comm.call_from(Site::of("other.py", 3));
                comm.broadcast((&mut buffer[..]).into(), Dtype::F32, 0, call)
            }
        })
    });
    for result in results {
        let text = result.unwrap_err().to_string();
        assert!(
            text.contains("at early.py:1 on rank 0") && text.contains("at other.py:3 on rank 1"),
            "{text}"
        );
    }
}

#[test]
fn a_timeout_says_what_the_missing_rank_called_last_and_where() {
    let done = std::sync::Barrier::new(2);
    let results = on_ranks(2, |comm| {
        comm.call_from(Site::of("train.py", 10 + comm.rank()));
        barrier(comm).unwrap();
        comm.set_timeout(Duration::from_millis(60));
        let result = if comm.rank() == 0 { barrier(comm) } else { Ok(()) };
        done.wait();
        (result, comm.flight_recorder().records().last().copied().unwrap())
    });
    let (result, last) = &results[0];
    let text = result.as_ref().unwrap_err().to_string();
    assert!(text.contains("at train.py:10 on rank 0"), "{text}");
    assert!(
        text.contains("the last call of rank 1 was operation 0 at train.py:11, and it has returned from it"),
        "{text}"
    );
    assert_eq!((last.state, last.awaited), (OperationState::Failed(ErrorKind::Timeout), Some(1)));
    assert!(last.waited_ns > 0);
}

#[test]
fn a_call_that_is_refused_is_named_by_its_site_on_the_others() {
    let results = on_ranks(2, |comm| {
        comm.call_from(Site::of("train.py", 20 + comm.rank()));
        let mut tensor = [0; 8];
        let span = isobit::WriteSpan::from(&mut tensor[..if comm.rank() == 1 { 7 } else { 8 }]);
        let sum = Reduction::new(ReduceOp::Sum, Dtype::F32);
        calling(&[2], |call| comm.all_reduce(span.into(), span, &sum, call))
    });
    let text = results[0].as_ref().unwrap_err().to_string();
    assert!(text.contains("at train.py:21 on rank 1"), "{text}");
}

//! Tests of small calls over shm, which are carried out straight on: what a peer sees of them, and what is recorded.

use std::sync::Barrier;
use std::time::Duration;

use isobit_core::{Dtype, ReduceOp};

use super::damage_tests::over_shm;
use super::{Call, Communicator, Reduction};
use crate::error::{Error, ErrorKind};
use crate::recorder::OperationState;

fn sum(comm: &mut Communicator, shape: &[u64]) -> Result<f32, Error> {
    let count: u64 = shape.iter().product();
    let (given, mut out) = (1f32.to_le_bytes().repeat(count as usize), vec![0; 4 * count as usize]);
    let mut call = Call { shape, timeout: None, interrupt: &mut || false };
    let reduction = Reduction::new(ReduceOp::Sum, Dtype::F32);
    comm.all_reduce((&given[..]).into(), (&mut out[..]).into(), &reduction, &mut call)?;
    Ok(f32::from_le_bytes([out[0], out[1], out[2], out[3]]))
}

/// The headers of a program are kept from one call to the next, and only what differs is written anew.
#[test]
fn each_call_says_its_own_shape_whatever_the_one_before_had() {
    let results = over_shm(
        2,
        |_| (),
        |comm| {
            for shape in [[4, 6], [6, 4], [4, 6], [4, 6]] {
                assert_eq!(sum(comm, &shape).unwrap(), 2.0);
            }
            sum(comm, if comm.rank() == 0 { &[4, 6] } else { &[6, 4] }).expect_err("the shapes differ")
        },
    );
    for error in results {
        assert_eq!(error.kind, ErrorKind::Desync, "{error}");
        assert!(error.message.contains("(4, 6)") && error.message.contains("(6, 4)"), "{error}");
    }
}

/// It is noted after its first messages went out: one that fails there must be on record all the same.
#[test]
fn an_operation_that_fails_at_its_first_message_is_on_record() {
    // Rank 1 ends the group's work when both are done with the first call, and rank 0 makes its second after that.
    let [called, aborted] = [(); 2].map(|()| Barrier::new(2));
    let results = over_shm(
        2,
        |_| (),
        |comm| {
            sum(comm, &[2]).unwrap();
            called.wait();
            if comm.rank() == 1 {
                comm.abort("enough");
            }
            aborted.wait();
            if comm.rank() == 1 {
                return None;
            }
            let error = sum(comm, &[2]).expect_err("the group's work has ended");
            Some((error, *comm.flight_recorder().records().last().expect("it has called twice")))
        },
    );
    let (error, last) = results[0].as_ref().expect("rank 0 has called once more");
    assert_eq!(error.kind, ErrorKind::Aborted, "{error}");
    assert_eq!((last.sequence, last.state), (1, OperationState::Failed(ErrorKind::Aborted)));
    assert!(last.end_ns.unwrap() >= last.start_ns && last.start_ns > 0);
}

/// Python lets its other threads run when it is asked, so that it must be before a call waits, not only while it does.
#[test]
fn a_call_of_any_size_asks_its_caller_before_it_waits() {
    for count in [2, 2048, 4096, 16_384, 65_536] {
        let tried = Barrier::new(2);
        let results = over_shm(
            2,
            |_| (),
            |comm| {
                let given = vec![0u8; 4 * count];
                let (mut out, mut asked) = (given.clone(), 0);
                if comm.rank() == 1 {
                    tried.wait();
                }
                // Less than the time after which a call that waits asks again.
                let timeout = Some(Duration::from_millis(5));
                let interrupt = &mut || {
                    asked += 1;
                    false
                };
                let mut call = Call { shape: &[count as u64], timeout, interrupt };
                let reduction = Reduction::new(ReduceOp::Sum, Dtype::F32);
                let result =
                    comm.all_reduce((&given[..]).into(), (&mut out[..]).into(), &reduction, &mut call);
                if comm.rank() == 0 {
                    tried.wait();
                }
                (result.expect_err("nobody waits for the other").kind, asked)
            },
        );
        assert_eq!(results[0].0, ErrorKind::Timeout);
        assert_ne!(results[0].1, 0, "a call of {count} numbers waited without a question");
    }
}

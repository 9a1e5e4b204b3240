//! Tests of calls over a link that damages messages: what is damaged once is healed, what is damaged
//! twice is given up.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use isobit_core::{Dtype, ReduceOp};
use isobit_sys::WriteSpan;

use super::{Call, Communicator, Reduction};
use crate::error::{Error, ErrorKind};
use crate::link::Link;
use crate::transport::shm::{self, ShmConfig, ShmOptions};
use crate::transport::{Attempt, memory};

/// One element, and so many that they take many messages.
const COUNTS: [usize; 2] = [1, 100_000];

/// What two ranks get who add 1 and 2, where `tamper` spoils what rank 1 sends.
fn sums(count: usize, tamper: fn(Attempt) -> Option<usize>) -> Vec<Result<Vec<f32>, Error>> {
    let mut links = memory::group(2);
    links[1].set_tamper(Box::new(tamper));
    // A rank that is done stays until the other is, so that its going explains nothing.
    let both = Barrier::new(2);
    thread::scope(|scope| {
        let threads: Vec<_> = (links.into_iter().map(|link| Communicator::over(Link::Memory(link))))
            .map(|mut comm| {
                let both = &both;
                scope.spawn(move || {
                    comm.set_timeout(Duration::from_secs(10));
                    let mut bytes = (comm.rank() as f32 + 1.0).to_le_bytes().repeat(count);
                    let span = WriteSpan::from(bytes.as_mut_slice());
                    let mut call = Call { shape: &[count as u64], timeout: None, interrupt: &mut || false };
                    let sum = Reduction::new(ReduceOp::Sum, Dtype::F32);
                    let result = comm.all_reduce(span.into(), span, &sum, &mut call);
                    both.wait();
                    let floats = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                    result.map(|()| floats.collect())
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no rank panics")).collect()
    })
}

/// The same between processes' rings, where the result has memory of its own: a message is reduced in the pass that
/// verifies it, and the reduction counts for nothing if it was damaged. No message is so small that its sender would not
/// wait for it: one that has left would send it again in its next call only.
#[test]
fn a_reduction_of_a_damaged_message_is_made_again() {
    for count in [16_384, 98_304] {
        let job = format!("damage-{}-{count}", std::process::id());
        let both = Barrier::new(2);
        let results: Vec<Result<Vec<u8>, Error>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..2)
                .map(|rank| {
                    let (job, both) = (job.clone(), &both);
                    scope.spawn(move || {
                        let deadline = Instant::now() + Duration::from_secs(10);
                        let config =
                            ShmConfig { job, rank, world_size: 2, deadline, options: ShmOptions::default() };
                        let mut link = shm::connect(&config, &mut || false).expect("the ranks meet");
                        link.set_tamper(Box::new(|attempt| (!attempt.again).then_some(20)));
                        let mut comm = Communicator::over(Link::Shm(link));
                        comm.set_timeout(Duration::from_secs(10));
                        let given = (rank as f32 + 1.0).to_le_bytes().repeat(count);
                        let mut out = vec![0; given.len()];
                        let mut call =
                            Call { shape: &[count as u64], timeout: None, interrupt: &mut || false };
                        let sum = Reduction::new(ReduceOp::Sum, Dtype::F32);
                        let result =
                            comm.all_reduce((&given[..]).into(), (&mut out[..]).into(), &sum, &mut call);
                        both.wait();
                        result.map(|()| out)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no rank panics")).collect()
        });
        for result in results {
            assert!(result.unwrap() == 3f32.to_le_bytes().repeat(count));
        }
    }
}

#[test]
fn what_is_damaged_once_is_healed_and_the_sums_are_right() {
    for count in COUNTS {
        for result in sums(count, |attempt| (!attempt.again).then_some(5)) {
            assert!(result.unwrap().iter().all(|sum| *sum == 3.0));
        }
    }
}

#[test]
fn what_is_damaged_twice_is_a_corruption_that_names_the_sender() {
    for count in COUNTS {
        let results = sums(count, |_| Some(5));
        let error = results[0].as_ref().unwrap_err();
        assert_eq!((error.kind, error.peer), (ErrorKind::Corruption, Some(1)), "{error}");
        assert!(results[1].is_err(), "the sender does not take its tensor for reduced");
    }
}

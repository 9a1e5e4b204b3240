//! Tests of calls over a link that damages messages: what is damaged once is healed, what is damaged
//! twice is given up.

use std::sync::Barrier;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use isobit_core::{Dtype, Order, ReduceOp};
use isobit_sys::WriteSpan;

use super::{Call, Communicator, Reduction};
use crate::error::{Error, ErrorKind};
use crate::link::Link;
use crate::transport::shm::{self, ShmConfig, ShmOptions};
use crate::transport::{Attempt, ShmTransport, Transport, memory};

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

/// What every rank of a shm group, made of threads, gets from `work`; `prepare` readies its link.
pub(super) fn over_shm<T: Send>(
    world_size: u32,
    prepare: fn(&mut ShmTransport),
    work: impl Fn(&mut Communicator) -> T + Sync,
) -> Vec<T> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let job = format!("damage-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
    let all = Barrier::new(world_size as usize);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..world_size)
            .map(|rank| {
                let (job, all, work) = (job.clone(), &all, &work);
                scope.spawn(move || {
                    let deadline = Instant::now() + Duration::from_secs(10);
                    let config = ShmConfig {
                        job,
                        rank,
                        world_size,
                        deadline,
                        options: ShmOptions::for_ranks(world_size),
                    };
                    let mut link = shm::connect(&config, &mut || false).expect("the ranks meet");
                    prepare(&mut link);
                    let mut comm = Communicator::over(Link::Shm(link));
                    comm.set_timeout(Duration::from_secs(10));
                    let result = work(&mut comm);
                    all.wait();
                    result
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no rank panics")).collect()
    })
}

fn all_reduce(comm: &mut Communicator, tensor: &[u8], out: &mut [u8]) -> Result<(), Error> {
    let shape = [tensor.len() as u64 / 4];
    let mut call = Call { shape: &shape, timeout: None, interrupt: &mut || false };
    comm.all_reduce(tensor.into(), out.into(), &Reduction::new(ReduceOp::Sum, Dtype::F32), &mut call)
}

/// The rank whose message is damaged has what it needs and is gone before anybody could object.
#[test]
fn a_small_sum_is_right_though_the_sender_of_a_damaged_part_never_calls_again() {
    let prepare = |link: &mut ShmTransport| {
        if link.rank() == 1 {
            link.set_tamper(Box::new(|attempt| (!attempt.again).then_some(20)));
        }
    };
    for (world_size, sum) in [(2, 3.0), (3, 6.0)] {
        let results = over_shm(world_size, prepare, |comm| {
            let mut out = [0; 4];
            all_reduce(comm, &(comm.rank() as f32 + 1.0).to_le_bytes(), &mut out).map(|()| out)
        });
        for result in results {
            assert_eq!(f32::from_le_bytes(result.unwrap()), sum);
        }
    }
}

/// The same between processes' rings, where the result has memory of its own: a message is reduced in the pass that
/// verifies it, and the reduction counts for nothing if it was damaged.
#[test]
fn a_reduction_of_a_damaged_message_is_made_again() {
    for count in [16_384, 98_304] {
        let prepare = |link: &mut ShmTransport| link.set_tamper(Box::new(|a| (!a.again).then_some(20)));
        let results = over_shm(2, prepare, |comm| {
            let given = (comm.rank() as f32 + 1.0).to_le_bytes().repeat(count);
            let mut out = vec![0; given.len()];
            all_reduce(comm, &given, &mut out).map(|()| out)
        });
        for result in results {
            assert!(result.unwrap() == 3f32.to_le_bytes().repeat(count));
        }
    }
}

/// More ranks, who send one another the same bytes from one place: in an all_reduce what was reduced, and what was given in
/// an all_gather, in place as well. All of them find the damage, and get it again.
#[test]
fn what_several_ranks_read_from_one_place_is_right_though_it_was_damaged() {
    const COUNT: usize = 200_000;
    let prepare = |link: &mut ShmTransport| {
        link.set_tamper(Box::new(|a| (a.number % 3 != 1 && !a.again).then_some(20)));
    };
    let results = over_shm(5, prepare, |comm| {
        let value = |rank: u32| (rank as f32 + 1.0).to_le_bytes();
        for round in 0..3 {
            let given = value(comm.rank() + round).repeat(COUNT);
            let mut out = vec![0; given.len()];
            all_reduce(comm, &given, &mut out).unwrap();
            assert!(out == (15.0 + 5.0 * round as f32).to_le_bytes().repeat(COUNT));
            let mut all = vec![0; 5 * given.len()];
            let mut call = Call { shape: &[COUNT as u64], timeout: None, interrupt: &mut || false };
            let block = comm.rank() as usize * given.len();
            all[block..][..given.len()].copy_from_slice(&given);
            let out = WriteSpan::from(all.as_mut_slice());
            let own = if round == 0 { given.as_slice().into() } else { out.slice(block, given.len()).into() };
            comm.all_gather(own, out, Dtype::F32, None, &mut call).unwrap();
            let blocks = (0..5).flat_map(|rank| value(rank + round).repeat(COUNT));
            assert!(all.into_iter().eq(blocks));
        }
    });
    assert_eq!(results.len(), 5);
}

/// So large that it goes past the caches: a rank's own blocks are copied in the passes that send its messages, and once,
/// though some of those are sent again; where a block is in its place already, it stays as it is.
#[test]
fn own_blocks_that_are_copied_beside_messages_are_right_though_those_were_damaged() {
    const BLOCK: usize = 9 << 20;
    let prepare = |link: &mut ShmTransport| {
        link.set_tamper(Box::new(|a| (a.number % 3 != 1 && !a.again).then_some(20)));
    };
    let results = over_shm(2, prepare, |comm| {
        let rank = comm.rank() as usize;
        let block = |of: usize, to: usize| move |at: usize| (at * 31 + (at >> 12) + 64 * of + 128 * to) as u8;
        let given: Vec<u8> = (0..2).flat_map(|to| (0..BLOCK).map(block(rank, to))).collect();
        let mut call = Call { shape: &[2 * BLOCK as u64], timeout: None, interrupt: &mut || false };
        let mut all = vec![0; 2 * BLOCK];
        comm.all_to_all(given.as_slice().into(), all.as_mut_slice().into(), Dtype::U8, None, None, &mut call)
            .unwrap();
        assert!(all.iter().copied().eq((0..2).flat_map(|from| (0..BLOCK).map(block(from, rank)))));
        for is_in_place in [false, true] {
            all.fill(0);
            all[rank * BLOCK..][..BLOCK].copy_from_slice(&given[..BLOCK]);
            let out = WriteSpan::from(all.as_mut_slice());
            let own =
                if is_in_place { out.slice(rank * BLOCK, BLOCK).into() } else { (&given[..BLOCK]).into() };
            comm.all_gather(own, out, Dtype::U8, None, &mut call).unwrap();
            assert!(all.iter().copied().eq((0..2).flat_map(|from| (0..BLOCK).map(block(from, 0)))));
        }
    });
    assert_eq!(results.len(), 2);
}

/// Only what goes to rank 0, the first, is damaged on its way; the others ask again because they read the same bytes.
#[test]
fn ranks_that_get_the_same_bytes_read_them_from_one_place() {
    static OTHERS: AtomicU32 = AtomicU32::new(0);
    let prepare = |link: &mut ShmTransport| {
        let mut sent = None;
        link.set_tamper(Box::new(move |Attempt { to, number, again, .. }| {
            // A buffered message and its copy are asked for one after the other, and nobody has asked for those.
            OTHERS.fetch_add(u32::from(again && to != 0 && sent != Some((to, number))), Relaxed);
            sent = (!again).then_some((to, number));
            (to == 0 && !again).then_some(20)
        }));
    };
    over_shm(4, prepare, |comm| {
        let given = 1f32.to_le_bytes().repeat(100_000);
        let mut all = vec![0; 4 * given.len()];
        let mut call = Call { shape: &[100_000], timeout: None, interrupt: &mut || false };
        comm.all_gather(given.as_slice().into(), all.as_mut_slice().into(), Dtype::F32, None, &mut call)
            .unwrap();
        assert!(all == given.repeat(4));
    });
    assert!(OTHERS.load(Relaxed) >= 6, "each rank but 0 sends the same to two others");
}

/// The same where the result lies in the tensor's own memory: what a reduction has overwritten is given back. Means
/// and exact sums, and other dtypes and more ranks, which take other loops, too.
#[test]
fn a_tensor_is_as_it_was_when_a_message_that_was_reduced_into_it_is_damaged() {
    let prepare = |link: &mut ShmTransport| link.set_tamper(Box::new(|a| (!a.again).then_some(20)));
    for (world_size, dtype) in [(2, Dtype::F32), (2, Dtype::I32), (3, Dtype::F32), (3, Dtype::I32)] {
        for (op, order) in
            [(ReduceOp::Sum, Order::Tree), (ReduceOp::Mean, Order::Tree), (ReduceOp::Sum, Order::Exact)]
        {
            if dtype == Dtype::I32 && (op, order) != (ReduceOp::Sum, Order::Tree) {
                continue;
            }
            let results = over_shm(world_size, prepare, |comm| {
                let value = |value: u32| match dtype {
                    Dtype::F32 => (value as f32).to_le_bytes(),
                    _ => value.to_le_bytes(),
                };
                // The rank that gets a share holds 4 or more, so that no value is the same twice over.
                let mut tensor = value(4 << comm.rank()).repeat(98_304);
                let span = WriteSpan::from(tensor.as_mut_slice());
                let mut call = Call { shape: &[98_304], timeout: None, interrupt: &mut || false };
                let reduction = Reduction { order, ..Reduction::new(op, dtype) };
                comm.all_reduce(span.into(), span, &reduction, &mut call).map(|()| {
                    let sum = (1 << world_size) * 4 - 4;
                    let mean = sum as f32 / world_size as f32;
                    (tensor, if op == ReduceOp::Mean { mean.to_le_bytes() } else { value(sum) })
                })
            });
            for result in results {
                let (found, expected) = result.unwrap();
                assert!(found == expected.repeat(98_304), "{op} of {dtype}, {order}, {world_size} ranks");
            }
        }
    }
}

/// Messages that arrived damaged can't be given again when their call has failed.
#[test]
fn a_tensor_is_its_callers_again_when_a_call_has_failed_and_the_group_goes_on() {
    let results = over_shm(
        3,
        |link| link.set_tamper(Box::new(|a| (a.number % 3 == 2 && !a.again).then_some(20))),
        |comm| {
            for round in 0..20u32 {
                let odd = comm.rank() == round % 3;
                let mut tensor = 1f32.to_le_bytes().repeat(if odd { 150_001 } else { 150_000 });
                let mut out = vec![0; tensor.len()];
                let error = all_reduce(comm, &tensor, &mut out).expect_err("one rank's count differs");
                assert_eq!(error.kind, ErrorKind::Desync, "{error}");
                assert!(error.message.contains("150001"), "{error}");
                tensor.fill(0xa5);
                let (one, mut sum) = (1f32.to_le_bytes(), [0; 4]);
                all_reduce(comm, &one, &mut sum).unwrap();
                assert_eq!(f32::from_le_bytes(sum), 3.0);
            }
        },
    );
    assert_eq!(results.len(), 3);
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

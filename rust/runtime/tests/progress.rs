//! Calls that go on while their caller computes, and groups within groups.

mod common;

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{calling, leaf, on_ranks};
use isobit::{Communicator, Dtype, ErrorKind, Job, Progress, ReduceOp, Reduction, WriteSpan};

/// Runs `body` on every rank of a group, each driven by a progress of its own.
fn on_progress<T: Send>(world_size: u32, body: impl Fn(u32, &mut Progress) -> T + Sync) -> Vec<T> {
    let ranks = Communicator::memory_group(world_size);
    std::thread::scope(|scope| {
        let body = &body;
        let spawn = |(rank, mut comm): (u32, Communicator)| {
            comm.set_timeout(Duration::from_secs(20));
            scope.spawn(move || body(rank, &mut Progress::new(comm)))
        };
        let threads: Vec<_> = (0..).zip(ranks).map(spawn).collect();
        threads.into_iter().map(|thread| thread.join().expect("the body does not panic")).collect()
    })
}

/// An all-reduce of a tensor that the job owns, which it gives back in `done`.
fn reduce_job(mut tensor: Vec<u8>, done: Arc<Mutex<Vec<Vec<u8>>>>) -> Job {
    Box::new(move |comm| {
        let span = WriteSpan::from(tensor.as_mut_slice());
        let sum = Reduction::new(ReduceOp::Sum, Dtype::F32);
        calling(&[], |call| comm.all_reduce(span.into(), span, &sum, call))?;
        done.lock().unwrap().push(tensor);
        Ok(())
    })
}

#[test]
fn calls_are_carried_out_in_the_order_in_which_they_were_issued() {
    on_progress(3, |rank, progress| {
        let done = Arc::new(Mutex::new(Vec::new()));
        let works: Vec<_> = (1..=20)
            .map(|count| progress.submit(reduce_job(leaf(Dtype::F32, rank, count * 1000), Arc::clone(&done))))
            .collect();
        let order = progress.call(&mut || false, |comm| {
            let seen: Vec<usize> = done.lock().unwrap().iter().map(Vec::len).collect();
            calling(&[], |call| comm.barrier(call)).map(|()| seen)
        });
        assert_eq!(order.unwrap().unwrap(), (1..=20).map(|count| count * 4000).collect::<Vec<usize>>());
        assert!(works.iter().all(|work| work.is_completed() && work.result() == Some(Ok(()))));
    });
}

#[test]
fn an_error_is_that_of_its_own_work_and_the_later_ones_go_on() {
    on_progress(2, |rank, progress| {
        let done = Arc::new(Mutex::new(Vec::new()));
        let count = 5 + u64::from(rank);
        let works = [5, count, 6]
            .map(|count| progress.submit(reduce_job(leaf(Dtype::F32, rank, count), Arc::clone(&done))));
        let [first, second, third] = works.map(|work| work.wait(None, &mut || false).unwrap());
        assert_eq!((first, third), (Ok(()), Ok(())));
        assert_eq!(second.unwrap_err().kind, ErrorKind::Desync);
    });
}

#[test]
fn a_wait_ends_at_its_timeout_or_its_interrupt_and_the_call_goes_on() {
    let (go, gone) = mpsc::channel();
    let gone = Mutex::new(gone);
    on_progress(2, |rank, progress| {
        if rank == 1 {
            gone.lock().unwrap().recv().unwrap();
        }
        let done = Arc::new(Mutex::new(Vec::new()));
        let work = progress.submit(reduce_job(leaf(Dtype::F32, rank, 9), done));
        if rank == 0 {
            assert_eq!(work.wait(Some(Duration::from_millis(10)), &mut || false), None);
            assert_eq!(work.wait(None, &mut || true), None);
            assert!(!work.is_completed());
            go.send(()).unwrap();
        }
        assert_eq!(work.wait(None, &mut || false), Some(Ok(())));
    });
}

#[test]
fn an_abort_from_another_thread_ends_the_call_in_progress_on_every_rank() {
    let kinds = on_progress(3, |rank, progress| {
        let done = Arc::new(Mutex::new(Vec::new()));
        if rank == 2 {
            progress.abort_handle().abort("enough");
        }
        let work = progress.submit(reduce_job(leaf(Dtype::F32, rank, 9), done));
        let error = work.wait(None, &mut || false).unwrap().unwrap_err();
        assert!(error.to_string().contains("enough"), "{error}");
        error.kind
    });
    assert_eq!(kinds, [ErrorKind::Aborted; 3]);
}

#[test]
fn closing_during_a_call_ends_it_and_those_behind_it() {
    let progress = Communicator::memory_group(2).into_iter().map(Progress::new).collect::<Vec<_>>();
    let done = Arc::new(Mutex::new(Vec::new()));
    let works =
        [1, 2].map(|count| progress[0].submit(reduce_job(leaf(Dtype::F32, 0, count), Arc::clone(&done))));
    progress[0].close();
    for work in works {
        assert_eq!(work.result().unwrap().unwrap_err().kind, ErrorKind::Aborted);
    }
    assert!(done.lock().unwrap().is_empty());
}

#[test]
fn a_split_numbers_the_ranks_of_a_color_by_key() {
    let places = on_ranks(5, |comm| {
        let rank = comm.rank();
        let color = (rank != 4).then_some(u64::from(rank % 2));
        let group = calling(&[], |call| comm.split(color, -i64::from(rank), call)).unwrap();
        group.map(|mut group| {
            let mut sum = [u8::try_from(rank).unwrap()];
            let span = WriteSpan::from(&mut sum[..]);
            let reduction = Reduction::new(ReduceOp::Sum, Dtype::U8);
            calling(&[], |call| group.all_reduce(span.into(), span, &reduction, call)).unwrap();
            (group.rank(), group.world_size(), sum[0])
        })
    });
    assert_eq!(places, [Some((1, 2, 2)), Some((1, 2, 4)), Some((0, 2, 2)), Some((0, 2, 4)), None]);
}

#[test]
fn overlapping_groups_are_used_at_the_same_time() {
    on_ranks(4, |comm| {
        let rank = comm.rank();
        let pairs: Vec<[u32; 2]> = (0..4).map(|first| [first, (first + 1) % 4]).collect();
        let mut groups: Vec<Progress> = Vec::new();
        for pair in pairs {
            let group = calling(&[], |call| comm.new_group(&pair, call)).unwrap();
            assert_eq!(group.is_some(), pair.contains(&rank));
            groups.extend(group.map(Progress::new));
        }
        let done = Arc::new(Mutex::new(Vec::new()));
        let works: Vec<_> = (0..20)
            .map(|call| groups[call % 2].submit(reduce_job(leaf(Dtype::F32, rank, 5000), Arc::clone(&done))))
            .collect();
        for work in works {
            assert_eq!(work.wait(None, &mut || false), Some(Ok(())));
        }
        assert_eq!(done.lock().unwrap().len(), 20);
    });
}

#[test]
fn a_group_that_ranks_name_differently_is_a_desync() {
    let kinds = on_ranks(3, |comm| {
        let ranks = if comm.rank() == 0 { [0, 1] } else { [1, 0] };
        let error = calling(&[], |call| comm.new_group(&ranks, call)).map(|_| ()).unwrap_err();
        calling(&[], |call| comm.barrier(call)).unwrap();
        error.kind
    });
    assert_eq!(kinds, [ErrorKind::Desync; 3]);
}

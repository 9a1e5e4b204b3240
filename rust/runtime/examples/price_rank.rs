//! A rank of `make bench-price`, which builds it in several ways and asks all of them for the same calls in turn.
//!
//! `price_rank JOB RANK WORLD_SIZE`. It says when it is ready. For each line `BYTES CALLS` on its standard input it
//! answers with one: how long each all-reduce of so many bytes of f32 took, in nanoseconds. It waits for the next one
//! outside the library.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::BufRead;
use std::time::{Duration, Instant};

use isobit::{Call, Communicator, Dtype, ReduceOp, Reduction, ShmConfig, ShmOptions};

type Outcome<T> = Result<T, Box<dyn Error>>;

const PATIENCE: Duration = Duration::from_secs(100);

/// Smaller calls follow each other directly, as in `isobit bench`.
const BYTES_WITH_BARRIER: usize = 128 << 10;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [job, rank, world_size] = &arguments[..] else {
        return Err("price_rank JOB RANK WORLD_SIZE".into());
    };
    let world_size = world_size.parse()?;
    let config = ShmConfig {
        job: job.clone(),
        rank: rank.parse()?,
        world_size,
        deadline: Instant::now() + PATIENCE,
        options: ShmOptions::for_ranks(world_size),
    };
    let mut comm = Communicator::connect(&config, &mut || false)?;
    comm.set_timeout(PATIENCE);
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (bytes, calls) = line.split_once(' ').ok_or("not understood")?;
        let times = all_reduces(&mut comm, bytes.parse()?, calls.parse()?)?;
        let times: Vec<String> = times.iter().map(|time| time.as_nanos().to_string()).collect();
        println!("{}", times.join(" "));
    }
    comm.close();
    Ok(())
}

/// How long each call took, after one that does not count.
fn all_reduces(comm: &mut Communicator, bytes: usize, calls: usize) -> Outcome<Vec<Duration>> {
    let input: Vec<u8> = (0..bytes / 4).flat_map(|i| ((i % 1000) as f32).to_le_bytes()).collect();
    let mut out = vec![0; input.len()];
    let sum = Reduction::new(ReduceOp::Sum, Dtype::F32);
    let mut times = Vec::with_capacity(calls + 1);
    for _ in 0..=calls {
        let mut call = Call { shape: &[bytes as u64 / 4], timeout: None, interrupt: &mut || false };
        if bytes >= BYTES_WITH_BARRIER {
            comm.barrier(&mut Call { shape: &[], timeout: None, interrupt: &mut || false })?;
        }
        let start = Instant::now();
        comm.all_reduce((&input[..]).into(), (&mut out[..]).into(), &sum, &mut call)?;
        times.push(start.elapsed());
    }
    let ranks = comm.world_size() as f32;
    let is_right = |(i, sum): (usize, &[u8])| *sum == ((i % 1000) as f32 * ranks).to_le_bytes();
    if !out.chunks_exact(4).enumerate().all(is_right) {
        return Err("a sum is wrong".into());
    }
    Ok(times.split_off(1))
}

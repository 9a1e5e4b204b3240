//! A rank of `isobit bench` in Rust: what a Rust program gets, without Python around it.
//!
//! The same program as `python/isobit/bench/rank.py`, which documents the lines on the socket: the same data, the same
//! loop, the same clock. Built with `cargo build --release --locked -p isobit --example bench_rank`.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use isobit::{Call, Communicator, Dtype, Order, ReduceOp, Reduction, ShmConfig, ShmOptions};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// As in `pattern.py`.
const PERIOD: usize = 65521;
const STEP: usize = 977;
const PATIENCE: Duration = Duration::from_secs(100);

struct Work<'a> {
    collective: &'a str,
    reduction: Reduction,
    count: usize,
    block: usize,
    input: Vec<u8>,
    out: Vec<u8>,
}

fn main() -> Outcome<()> {
    let variable = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let mut answers = UnixStream::connect(variable("ISOBIT_BENCH_SOCKET")?)?;
    let requests = BufReader::new(answers.try_clone()?);
    let world_size = variable("WORLD_SIZE")?.parse()?;
    let config = ShmConfig {
        job: variable("ISOBIT_JOB")?,
        rank: variable("RANK")?.parse()?,
        world_size,
        deadline: Instant::now() + PATIENCE,
        options: ShmOptions::for_ranks(world_size),
    };
    let mut comm = Communicator::connect(&config, &mut || false)?;
    comm.set_timeout(PATIENCE);
    let (name, pid, version) =
        (variable("ISOBIT_BENCH_NAME")?, std::process::id(), env!("CARGO_PKG_VERSION"));
    writeln!(answers, "hello {name} {} {} {pid} {version}", comm.rank(), comm.world_size())?;
    for line in requests.lines() {
        let line = line?;
        if line == "end" {
            comm.close();
            return Ok(());
        }
        let answer =
            run(&mut comm, &line).unwrap_or_else(|error| format!("error {error}").replace('\n', " "));
        writeln!(answers, "{answer}")?;
    }
    Err("the driver is gone".into())
}

fn run(comm: &mut Communicator, line: &str) -> Outcome<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let [_, collective, dtype, order, size, iterations, warmup, synchronised] = words[..] else {
        return Err(format!("not understood: {line}").into());
    };
    let dtype = Dtype::from_name(dtype).ok_or("no such dtype")?;
    let order = Order::from_name(order).ok_or("no such order")?;
    let reduction = Reduction { order, ..Reduction::new(ReduceOp::Sum, dtype) };
    let (rank, ranks) = (comm.rank() as usize, comm.world_size() as usize);
    let count = size.parse::<usize>()? / dtype.size();
    let block = count / ranks;
    let (given, got) = lay_out(collective, count, block, rank);
    let (input, out) = (vec![0; given * dtype.size()], vec![0; got * dtype.size()]);
    let mut work = Work { collective, reduction, count, block, input, out };
    let sends_out = collective == "broadcast" && rank == 0;
    let own = table(dtype, ranks, Some(rank));
    fill(&mut work.input, &own);
    if sends_out {
        fill(&mut work.out, &own);
    } else {
        work.out.fill(0xff);
    }
    for _ in 0..warmup.parse::<usize>()? {
        work.call(comm)?;
    }
    if !sends_out {
        work.out.fill(0xff);
    }
    let mut times = vec![0; iterations.parse::<usize>()?];
    barrier(comm)?;
    for time in &mut times {
        if synchronised == "1" {
            barrier(comm)?;
        }
        let start = Instant::now();
        work.call(comm)?;
        *time = start.elapsed().as_nanos();
    }
    let times: Vec<String> = times.iter().map(u128::to_string).collect();
    Ok(format!("done {} {}", work.wrong(rank, ranks), times.join(" ")))
}

/// How many elements this rank gives and gets.
fn lay_out(collective: &str, whole: usize, block: usize, rank: usize) -> (usize, usize) {
    let at_root = if rank == 0 { whole } else { 0 };
    match collective {
        "all_reduce" | "all_to_all" => (whole, whole),
        "reduce" => (whole, at_root),
        "reduce_scatter" => (whole, block),
        "all_gather" => (block, whole),
        "gather" => (block, at_root),
        "scatter" => (at_root, block),
        "broadcast" => (0, whole),
        "send_recv" if rank < 2 => (whole, whole),
        _ => (0, 0),
    }
}

fn barrier(comm: &mut Communicator) -> Result<(), isobit::Error> {
    comm.barrier(&mut Call { shape: &[], timeout: None, interrupt: &mut || false })
}

impl Work<'_> {
    fn call(&mut self, comm: &mut Communicator) -> Result<(), isobit::Error> {
        let (rank, dtype, reduction) = (comm.rank(), self.reduction.dtype, &self.reduction);
        let (input, out) = (self.input.as_slice().into(), self.out.as_mut_slice().into());
        let shape = [self.count as u64];
        let mut interrupt = || false;
        let call = &mut Call { shape: &shape, timeout: None, interrupt: &mut interrupt };
        match self.collective {
            "all_reduce" => comm.all_reduce(input, out, reduction, call),
            "reduce" => comm.reduce(input, (rank == 0).then_some(out), reduction, 0, call),
            "reduce_scatter" => comm.reduce_scatter(input, out, reduction, None, call),
            "all_gather" => comm.all_gather(input, out, dtype, None, call),
            "gather" => comm.gather(input, (rank == 0).then_some(out), dtype, 0, None, call),
            "scatter" => comm.scatter((rank == 0).then_some(input), out, dtype, 0, None, call),
            "broadcast" => comm.broadcast(out, dtype, 0, call),
            "all_to_all" => comm.all_to_all(input, out, dtype, None, None, call),
            "barrier" => comm.barrier(call),
            _ if rank == 0 => {
                comm.send(input, dtype, 1, 0, call)?;
                comm.recv(out, dtype, 1, 0, call)
            }
            _ if rank == 1 => {
                comm.recv(out, dtype, 0, 0, call)?;
                comm.send(input, dtype, 0, 0, call)
            }
            _ => Ok(()),
        }
    }

    /// How many elements of what this rank got have other bits than the one right answer.
    fn wrong(&self, rank: usize, ranks: usize) -> usize {
        let dtype = self.reduction.dtype;
        let size = dtype.size();
        let check = |of, start, out: &[u8]| differing(out, &table(dtype, ranks, of), start, size);
        let mine = rank * self.block;
        match self.collective {
            "all_reduce" | "reduce" => check(None, 0, &self.out),
            "reduce_scatter" => check(None, mine, &self.out),
            "scatter" => check(Some(0), mine, &self.out),
            "broadcast" => check(Some(0), 0, &self.out),
            "send_recv" if rank < 2 => check(Some(1 - rank), 0, &self.out),
            "all_gather" | "gather" | "all_to_all" => {
                let start = if self.collective == "all_to_all" { mine } else { 0 };
                let blocks = self.out.chunks(self.block * size).enumerate();
                blocks.map(|(of, out)| check(Some(of), start, out)).sum()
            }
            _ => 0,
        }
    }
}

/// One period of a rank's numbers, or of the sum of all ranks'.
fn table(dtype: Dtype, ranks: usize, rank: Option<usize>) -> Vec<u8> {
    let shift = if ranks <= 8 { 28 } else { 31 };
    let value = |index: usize, rank: usize| {
        (((index + STEP * rank) % PERIOD) as u32).wrapping_mul(2_654_435_761) >> shift
    };
    let number = |index| match rank {
        Some(rank) => value(index, rank),
        None => (0..ranks).map(|rank| value(index, rank)).sum(),
    };
    (0..PERIOD).flat_map(|index| encode(dtype, number(index)).into_iter().take(dtype.size())).collect()
}

/// A small number in the dtype; what is longer than an element is to be cut off.
fn encode(dtype: Dtype, number: u32) -> [u8; 8] {
    let single = (number as f32).to_bits();
    let half = if number == 0 { 0 } else { ((single >> 23) - 112) << 10 | (single >> 13 & 0x3ff) };
    let bits = match dtype {
        Dtype::F32 => single.into(),
        Dtype::F64 => f64::from(number).to_bits(),
        Dtype::F16 => half.into(),
        Dtype::Bf16 => u64::from(single >> 16),
        _ => number.into(),
    };
    bits.to_le_bytes()
}

fn fill(memory: &mut [u8], period: &[u8]) {
    for part in memory.chunks_mut(period.len()) {
        part.copy_from_slice(&period[..part.len()]);
    }
}

fn differing(memory: &[u8], period: &[u8], start: usize, size: usize) -> usize {
    let (mut wrong, mut rest, mut at) = (0, memory, start % PERIOD * size);
    while !rest.is_empty() {
        let (part, after) = rest.split_at(rest.len().min(period.len() - at));
        let expected = &period[at..at + part.len()];
        if part != expected {
            wrong += part.chunks(size).zip(expected.chunks(size)).filter(|(one, other)| one != other).count();
        }
        (rest, at) = (after, 0);
    }
    wrong
}

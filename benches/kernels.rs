//! The kernels against memcpy and against each other, as ratios in one run:
//! `cargo bench -p isobit-sys --bench kernels [-- scalar|avx2|avx512]`.
//!
//! Rounds are interleaved, so that a busy neighbour disturbs all candidates alike. Of each candidate:
//! its fastest round; its bandwidth's ratio to the first's, of the fastest rounds of both and as the
//! median of the ratios in each round. Bandwidth counts bytes read and bytes written.

use std::hint::black_box;
use std::time::Instant;

use isobit_core::schedule::Content;
use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp};
use isobit_sys::{Input, Kernels, ReadSpan, Written};

/// A measured loop and the bytes it moves.
struct Candidate<'a> {
    name: String,
    bytes: usize,
    run: Box<dyn FnMut() + 'a>,
}

impl<'a> Candidate<'a> {
    fn new(name: impl Into<String>, bytes: usize, run: impl FnMut() + 'a) -> Candidate<'a> {
        Candidate { name: name.into(), bytes, run: Box::new(run) }
    }
}

/// Prints each candidate's bandwidth and its ratio to the first one's.
fn compare(title: &str, rounds: usize, repeat: usize, mut candidates: Vec<Candidate<'_>>) {
    let mut seconds = vec![Vec::with_capacity(rounds); candidates.len()];
    for round in 0..=rounds {
        for (candidate, seconds) in candidates.iter_mut().zip(&mut seconds) {
            let start = Instant::now();
            for _ in 0..repeat {
                (candidate.run)();
            }
            if round > 0 {
                seconds.push(start.elapsed().as_secs_f64() / repeat as f64);
            }
        }
    }
    println!("{title}");
    let least = |seconds: &[f64]| seconds.iter().copied().fold(f64::INFINITY, f64::min);
    let first = candidates[0].bytes as f64;
    for (candidate, own) in candidates.iter().zip(&seconds) {
        let bytes = candidate.bytes as f64;
        let mut paired: Vec<f64> =
            own.iter().zip(&seconds[0]).map(|(own, others)| bytes / own / (first / others)).collect();
        paired.sort_by(f64::total_cmp);
        println!(
            "  {:34} {:9.1} us  {:6.2} GB/s  of the first's bandwidth {:5.2} (fastest) {:5.2} (paired)",
            candidate.name,
            least(own) * 1e6,
            bytes / least(own) / 1e9,
            bytes / least(own) / (first / least(&seconds[0])),
            paired[paired.len() / 2]
        );
    }
}

/// Elements that are drawn; a longer leaf repeats them.
const DRAWN: usize = 1 << 18;

/// Leaves whose elements are normal numbers of about one size, in `dtype`.
fn leaves(dtype: Dtype, count: u64, len: usize) -> Vec<Vec<u8>> {
    let kernels = Kernels::best();
    (0..count)
        .map(|leaf| {
            let mut state = leaf + 1;
            let values: Vec<u8> = (0..len.min(DRAWN))
                .flat_map(|_| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    // A sum of four uniform numbers: bell-shaped.
                    let parts = state.to_le_bytes();
                    let sum: i32 = parts[4..].iter().map(|part| i32::from(*part) - 128).sum();
                    let fine = f64::from((state >> 8) as u32 & 0xff_ffff) / (1u64 << 31) as f64;
                    (f64::from(sum) / 128.0 + fine).to_le_bytes()
                })
                .collect();
            let mut bytes = vec![0; len.min(DRAWN) * dtype.size()];
            kernels.convert(Dtype::F64, dtype, values.as_slice().into(), bytes.as_mut_slice().into());
            bytes.into_iter().cycle().take(len * dtype.size()).collect()
        })
        .collect()
}

fn contract(order: Order, count: u32, dtype: Dtype, accumulate: Option<Dtype>) -> Contract {
    let spec = ContractSpec { accumulate, ..ContractSpec::new(ReduceOp::Sum, order, count, dtype) };
    Contract::new(spec).expect("a sum of floats")
}

fn reductions(kernels: &Kernels, where_: &str, len: usize, rounds: usize, repeat: usize) {
    let bytes = 4 * len;
    let source = vec![1u8; 4 * bytes];
    let mut copied = vec![0u8; 4 * bytes];
    let all = [Dtype::F32, Dtype::Bf16, Dtype::F16, Dtype::F64].map(|dtype| {
        let len = len * 4 / dtype.size();
        (dtype, leaves(dtype, 8, len))
    });
    let mut outs = vec![vec![0u8; bytes]; 16];
    let mut spare = outs.iter_mut();
    let mut candidates =
        vec![Candidate::new("memcpy", 8 * bytes, || copied.copy_from_slice(black_box(&source)))];
    for (dtype, leaves) in &all {
        for (order, accumulate, ways) in [
            (Order::Tree, Some(Dtype::F64), 8u32),
            (Order::Tree, Some(Dtype::F32), 8),
            (Order::Exact, None, 8),
            (Order::Tree, None, 2),
            (Order::Tree, None, 7),
        ] {
            if (accumulate == Some(Dtype::F32) && *dtype == Dtype::F64) || (ways != 8 && *dtype != Dtype::F32)
            {
                continue;
            }
            let contract = contract(order, ways, *dtype, accumulate);
            let out = spare.next().expect("an output for each candidate");
            let inputs: Vec<Input> = (0..ways)
                .map(|leaf| Input {
                    content: Content::Leaf(leaf),
                    span: leaves[leaf as usize].as_slice().into(),
                })
                .collect();
            let acc =
                contract.dtype_acc().map_or("exact".to_owned(), |acc| format!("tree, {acc} accumulator"));
            let name = format!("{dtype} {ways}-way {acc}");
            candidates.push(Candidate::new(name, (ways as usize + 1) * bytes, move || {
                kernels
                    .reduce(&contract, &inputs, Content::Result, out.as_mut_slice().into())
                    .expect("inputs tile");
            }));
        }
    }
    compare(&format!("{where_}: {bytes} bytes a leaf, {}", kernels.name()), rounds, repeat, candidates);
}

fn copies(kernels: &Kernels, where_: &str, bytes: usize, rounds: usize, repeat: usize) {
    let source = vec![7u8; bytes];
    let (mut a, mut b, mut c) = (vec![0u8; bytes], vec![0u8; bytes], vec![0u8; bytes / 2]);
    let other = vec![7u8; bytes];
    let [mut sum, mut summed, mut sum_after, mut means] =
        [const { Vec::new() }; 4].map(|_: Vec<u8>| vec![0u8; bytes]);
    let leaves = [Content::Leaf(0), Content::Leaf(1)];
    let prepare = |op| {
        let contract =
            Contract::new(ContractSpec::new(op, Order::Tree, 2, Dtype::F32)).expect("a sum of floats");
        kernels.prepare(&contract, &leaves, Content::Result).expect("two leaves")
    };
    let (add, mean) = (prepare(ReduceOp::Sum), prepare(ReduceOp::Mean));
    let inputs: [ReadSpan; 2] = [source.as_slice().into(), other.as_slice().into()];
    let candidates = vec![
        Candidate::new("memcpy", 2 * bytes, || a.copy_from_slice(black_box(&source))),
        Candidate::new("copy with checksum", 2 * bytes, || {
            black_box(kernels.copy_checksum(source.as_slice().into(), b.as_mut_slice().into()));
        }),
        Candidate::new("checksum alone", bytes, || {
            black_box(kernels.checksum(source.as_slice().into()));
        }),
        Candidate::new("xxhash-rust alone", bytes, || {
            black_box(xxhash_rust::xxh3::xxh3_64(black_box(&source)));
        }),
        Candidate::new("f32 2-way sum", 3 * bytes, || {
            add.run(&inputs, sum.as_mut_slice().into()).expect("inputs tile");
        }),
        Candidate::new("checksum, then f32 2-way sum", 3 * bytes, || {
            black_box(kernels.checksum(inputs[0]));
            add.run(&inputs, sum_after.as_mut_slice().into()).expect("inputs tile");
        }),
        Candidate::new("f32 2-way sum with checksum", 3 * bytes, || {
            black_box(
                add.run_summed(&inputs, 0, summed.as_mut_slice().into(), Written::Cached)
                    .expect("inputs tile"),
            );
        }),
        Candidate::new("f32 2-way mean with checksum", 3 * bytes, || {
            black_box(
                mean.run_summed(&inputs, 0, means.as_mut_slice().into(), Written::Cached)
                    .expect("inputs tile"),
            );
        }),
        Candidate::new("f32 to bf16", bytes + bytes / 2, || {
            kernels.convert(Dtype::F32, Dtype::Bf16, source.as_slice().into(), c.as_mut_slice().into());
        }),
    ];
    compare(&format!("{where_}: {bytes} bytes, {}", kernels.name()), rounds, repeat, candidates);
}

fn main() {
    let wanted = std::env::args().nth(1).filter(|name| !name.starts_with('-'));
    let kernels = match wanted {
        None => Kernels::best(),
        Some(name) => Kernels::available()
            .into_iter()
            .find(|kernels| kernels.name() == name)
            .expect("this processor has the instruction set"),
    };
    reductions(kernels, "from DRAM", 16 << 20, 15, 1);
    reductions(kernels, "from the second-level cache", 4 << 10, 101, 20);
    copies(kernels, "from DRAM", 128 << 20, 15, 1);
    copies(kernels, "from the third-level cache", 4 << 20, 51, 2);
    copies(kernels, "one message", 64 << 10, 101, 50);
    copies(kernels, "from the first-level cache", 4 << 10, 101, 500);
}

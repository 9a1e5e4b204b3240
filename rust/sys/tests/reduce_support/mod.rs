//! Tensors of numbers that are worth a test, and every instruction set's reduction of them beside the law's.

#![allow(dead_code, reason = "not every test uses all of it")]

use isobit_core::law::{element_bytes, fold};
use isobit_core::schedule::Content;
use isobit_core::{Contract, Dtype};
use isobit_sys::{Input, Kernels, ReadSpan, WriteSpan, Written};
use xxhash_rust::xxh3::xxh3_64;

/// A small generator, so that a seed is the whole case.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// How the elements of a tensor are drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Values {
    /// Any bit pattern.
    Any,
    /// Floats of about the same size, some of them exact opposites.
    Close,
    /// Zeros of both signs, subnormals, the largest, infinities, NaNs, small integers.
    Special,
    /// Floats over some tens of binades.
    Spread,
}

fn element(dtype: Dtype, values: Values, rng: &mut Rng) -> u64 {
    use isobit_core::float::from_f64;
    let any = rng.next();
    if !dtype.is_float() {
        return if matches!(values, Values::Special) { any % 3 } else { any };
    }
    let unit = (any >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0;
    match values {
        Values::Any => any,
        Values::Close => match rng.below(4) {
            0 => from_f64(dtype, ((any % 7) as f64 - 3.0) * 0.25),
            _ => from_f64(dtype, unit),
        },
        Values::Spread => {
            let scale = rng.below(if dtype == Dtype::F64 { 120 } else { 40 }) as i32 - 20;
            from_f64(dtype, unit * 2f64.powi(scale))
        }
        Values::Special => {
            let magnitudes = [
                0.0,
                0.0,
                1.0,
                3.0,
                0.5,
                f64::INFINITY,
                f64::NAN,
                448.0,
                65504.0,
                1e-45,
                3.4e38,
                1.2e-38,
                5e-324,
            ];
            let value = magnitudes[rng.below(magnitudes.len() as u64) as usize];
            let bits = from_f64(dtype, value);
            let sign = rng.below(2) << (8 * dtype.size() - 1);
            // Another payload, now and then.
            bits ^ sign ^ if value.is_nan() && dtype != Dtype::F8E4m3fn { rng.below(2) } else { 0 }
        }
    }
}

pub(crate) fn tensor(dtype: Dtype, len: usize, values: Values, rng: &mut Rng) -> Vec<u8> {
    (0..len)
        .flat_map(|_| {
            element(dtype, values, rng).to_le_bytes().into_iter().take(dtype.size()).collect::<Vec<_>>()
        })
        .collect()
}

fn hex(bytes: &[u8], size: usize) -> Vec<String> {
    bytes
        .chunks(size)
        .map(|element| element.iter().rev().map(|byte| format!("{byte:02x}")).collect())
        .collect()
}

/// Compares every instruction set with the law, aligned, unaligned, and in place of every input of
/// the output's size.
pub(crate) fn check(contract: &Contract, inputs: &[(Content, Vec<u8>)], target: Content) {
    let slices: Vec<(Content, &[u8])> =
        inputs.iter().map(|(content, bytes)| (*content, bytes.as_slice())).collect();
    let contents: Vec<Content> = inputs.iter().map(|(content, _)| *content).collect();
    let expected = fold(contract, &slices, target);
    let size = element_bytes(target, Some(contract), contract.dtype_in());
    let compare = |name: &str, how: &str, found: &[u8]| {
        if found != expected {
            let (found, expected) = (hex(found, size), hex(&expected, size));
            let index = (0..found.len()).find(|i| found[*i] != expected[*i]).unwrap();
            let column: Vec<_> = inputs
                .iter()
                .map(|(content, bytes)| (content, hex(bytes, bytes.len() / expected.len())[index].clone()))
                .collect();
            panic!(
                "{name}, {how}: {contract}: element {index} of {target:?} is {} but should be {}: {column:?}",
                found[index], expected[index]
            );
        }
    };
    for kernels in Kernels::available() {
        for shift in [0, 1] {
            let shifted: Vec<Vec<u8>> = inputs
                .iter()
                .enumerate()
                .map(|(i, (_, bytes))| {
                    let mut padded = vec![0; shift * (1 + i % 3)];
                    padded.extend(bytes);
                    padded
                })
                .collect();
            let operands: Vec<Input> = shifted
                .iter()
                .enumerate()
                .map(|(i, bytes)| Input { content: inputs[i].0, span: bytes[shift * (1 + i % 3)..].into() })
                .collect();
            let mut out = vec![0xa5; expected.len() + 2 * shift];
            kernels
                .reduce(contract, &operands, target, (&mut out[shift..shift + expected.len()]).into())
                .unwrap();
            compare(
                kernels.name(),
                if shift == 0 { "aligned" } else { "unaligned" },
                &out[shift..shift + expected.len()],
            );
            let spans: Vec<ReadSpan> = operands.iter().map(|operand| operand.span).collect();
            let prepared = kernels.prepare(contract, &contents, target).unwrap();
            let summed = spans.len() * shift / 2;
            out[shift..shift + expected.len()].fill(0xa5);
            let sum = prepared.run_summed(
                &spans,
                summed,
                (&mut out[shift..shift + expected.len()]).into(),
                Written::Cached,
            );
            assert_eq!(sum.unwrap(), xxh3_64(&inputs[summed].1), "{}: {contract}", kernels.name());
            compare(kernels.name(), "with a checksum", &out[shift..shift + expected.len()]);
            out[shift..shift + expected.len()].fill(0xa5);
            let sum = prepared.run_summed(
                &spans,
                summed,
                (&mut out[shift..shift + expected.len()]).into(),
                Written::Streamed,
            );
            assert_eq!(sum.unwrap(), xxh3_64(&inputs[summed].1), "{}: {contract}", kernels.name());
            compare(kernels.name(), "with a checksum, past the caches", &out[shift..shift + expected.len()]);
            out[shift..shift + expected.len()].fill(0xa5);
            prepared.run_streamed(&spans, (&mut out[shift..shift + expected.len()]).into()).unwrap();
            compare(kernels.name(), "past the caches", &out[shift..shift + expected.len()]);
            assert!(
                out[..shift].iter().chain(&out[shift + expected.len()..]).all(|byte| *byte == 0xa5),
                "wrote outside"
            );
        }
        for place in 0..inputs.len() {
            if inputs[place].1.len() != expected.len() {
                continue;
            }
            let mut shared = inputs[place].1.clone();
            let out = WriteSpan::from(shared.as_mut_slice());
            let operands: Vec<Input> = inputs
                .iter()
                .enumerate()
                .map(|(i, (content, bytes))| Input {
                    content: *content,
                    span: if i == place { out.into() } else { bytes.as_slice().into() },
                })
                .collect();
            kernels.reduce(contract, &operands, target, out).unwrap();
            compare(kernels.name(), &format!("in place of input {place}"), &out.to_vec());
            let Some(summed) = (0..inputs.len()).find(|input| *input != place) else { continue };
            kernels.copy(inputs[place].1.as_slice().into(), out);
            let spans: Vec<ReadSpan> = operands.iter().map(|operand| operand.span).collect();
            let prepared = kernels.prepare(contract, &contents, target).unwrap();
            let mut kept = vec![0xa5; expected.len()];
            let keep = prepared.can_keep();
            let room = if keep { Written::Keeping(kept.as_mut_slice().into()) } else { Written::Cached };
            let sum = prepared.run_summed(&spans, summed, out, room).unwrap();
            assert!(!keep || kept == inputs[place].1, "{}: {contract}: the input is lost", kernels.name());
            assert_eq!(sum, xxh3_64(&inputs[summed].1), "{}: {contract}", kernels.name());
            compare(kernels.name(), &format!("with a checksum, in place of input {place}"), &out.to_vec());
        }
    }
}

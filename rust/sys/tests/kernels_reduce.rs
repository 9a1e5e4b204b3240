//! Every instruction set's reductions give the law's bits: every operation, dtype, accumulator and
//! result, any tiling, special values, odd lengths, unaligned and shared memory.

use isobit_core::law::{LeafSet, Node, cover, element_bytes, fold};
use isobit_core::schedule::Content;
use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp};
use isobit_sys::{Input, Kernels, ReadSpan, WriteSpan};
use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

/// A small generator, so that a seed is the whole case.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// How the elements of a tensor are drawn.
#[derive(Clone, Copy, Debug)]
enum Values {
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

fn tensor(dtype: Dtype, len: usize, values: Values, rng: &mut Rng) -> Vec<u8> {
    (0..len)
        .flat_map(|_| {
            element(dtype, values, rng).to_le_bytes().into_iter().take(dtype.size()).collect::<Vec<_>>()
        })
        .collect()
}

/// Inputs that tile `target`: its leaves, or covers of random runs of them.
fn inputs_of(
    contract: &Contract,
    target: Node,
    len: usize,
    values: Values,
    rng: &mut Rng,
) -> Vec<(Content, Vec<u8>)> {
    let mut inputs = Vec::new();
    let mut first = target.first();
    while first < target.end() {
        let rest = u64::from(target.end() - first);
        let count = match rng.below(3) {
            0 => 1 + rng.below(rest),
            1 => 1,
            _ => rest.min(1 + rng.below(4)),
        };
        let end = first + count as u32;
        let raw = rng.below(2) == 0 || contract.leaves() == 1;
        match contract.order() {
            Order::Exact if !raw => {
                let leaves: Vec<Vec<u8>> =
                    (first..end).map(|_| tensor(contract.dtype_in(), len, values, rng)).collect();
                let leaves: Vec<(Content, &[u8])> =
                    (first..end).map(Content::Leaf).zip(leaves.iter().map(Vec::as_slice)).collect();
                let target = Content::Wide(end - first);
                inputs.push((target, fold(contract, &leaves, target)));
            }
            Order::Tree if !raw => {
                let nodes = cover(contract.leaves(), &LeafSet::run(first, end));
                inputs.extend(nodes.into_iter().map(Content::of_node).map(|content| {
                    let dtype = content.dtype(Some(contract), contract.dtype_in()).unwrap();
                    (content, tensor(dtype, len, values, rng))
                }));
            }
            _ => inputs.extend(
                (first..end).map(|leaf| (Content::Leaf(leaf), tensor(contract.dtype_in(), len, values, rng))),
            ),
        }
        first = end;
    }
    inputs
}

fn hex(bytes: &[u8], size: usize) -> Vec<String> {
    bytes
        .chunks(size)
        .map(|element| element.iter().rev().map(|byte| format!("{byte:02x}")).collect())
        .collect()
}

/// Compares every instruction set with the law, aligned, unaligned, and in place of every input of
/// the output's size.
fn check(contract: &Contract, inputs: &[(Content, Vec<u8>)], target: Content) {
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
            let sum =
                prepared.run_summed(&spans, summed, (&mut out[shift..shift + expected.len()]).into(), None);
            assert_eq!(sum.unwrap(), xxh3_64(&inputs[summed].1), "{}: {contract}", kernels.name());
            compare(kernels.name(), "with a checksum", &out[shift..shift + expected.len()]);
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
            let room = keep.then(|| kept.as_mut_slice().into());
            let sum = prepared.run_summed(&spans, summed, out, room).unwrap();
            assert!(!keep || kept == inputs[place].1, "{}: {contract}: the input is lost", kernels.name());
            assert_eq!(sum, xxh3_64(&inputs[summed].1), "{}: {contract}", kernels.name());
            compare(kernels.name(), &format!("with a checksum, in place of input {place}"), &out.to_vec());
        }
    }
}

/// Every contract with these leaves, but for accumulators and results, of which one is drawn.
fn contracts(leaves: u32, rng: &mut Rng) -> Vec<Contract> {
    let mut found = Vec::new();
    for dtype in Dtype::ALL {
        for &op in ReduceOp::ALL {
            for &order in Order::ALL {
                let mut spec = ContractSpec::new(op, order, leaves, dtype);
                spec.accumulate = [None, Some(Dtype::F32), Some(Dtype::F64)][rng.below(3) as usize];
                if rng.below(2) == 0 {
                    spec.out_dtype = Some(Dtype::FLOATS[rng.below(6) as usize]);
                }
                if op == ReduceOp::Mean && rng.below(2) == 0 {
                    spec.divisor = Some(1 + rng.below(12));
                }
                let plain = ContractSpec::new(op, order, leaves, dtype);
                found.extend(Contract::new(spec).or_else(|_| Contract::new(plain)));
            }
        }
    }
    found
}

fn targets(contract: &Contract) -> Vec<(Node, Content)> {
    let root = Node::root(contract.leaves());
    let mut targets = vec![(root, Content::Result)];
    match contract.order() {
        Order::Exact => targets.push((root, Content::Wide(contract.leaves()))),
        Order::Tree => targets.extend(
            root.children()
                .map(|(left, _)| left)
                .filter(|left| !left.is_leaf())
                .map(|left| (left, Content::Node(left))),
        ),
    }
    targets
}

fn sweep(leaves: u32, len: usize, values: Values, seed: u64) {
    let mut rng = Rng(seed);
    for contract in contracts(leaves, &mut rng) {
        for (node, target) in targets(&contract) {
            let inputs = inputs_of(&contract, node, len, values, &mut rng);
            check(&contract, &inputs, target);
        }
    }
}

#[test]
fn every_contract_gives_the_laws_bits_on_every_instruction_set() {
    for leaves in 1..=9 {
        for values in [Values::Any, Values::Close, Values::Special, Values::Spread] {
            sweep(leaves, 37, values, u64::from(leaves) * 31);
        }
    }
}

#[test]
fn blocks_and_their_remainders_give_the_laws_bits() {
    for len in [0, 1, 15, 16, 511, 512, 513, 1100] {
        if len == 0 {
            continue;
        }
        sweep(3, len, Values::Spread, len as u64);
    }
}

#[test]
fn whole_messages_give_the_laws_bits_and_their_checksum() {
    let mut rng = Rng(5);
    let reductions = [(ReduceOp::Sum, 2), (ReduceOp::Mean, 2), (ReduceOp::Sum, 3)];
    for dtype in [Dtype::F32, Dtype::Bf16] {
        for ((op, leaves), order) in
            reductions.into_iter().flat_map(|of| [Order::Tree, Order::Exact].map(|to| (of, to)))
        {
            let contract = Contract::new(ContractSpec::new(op, order, leaves, dtype)).unwrap();
            for len in [61, 256, 257, 4096, 16_383, 16_384] {
                let leaf = |leaf| (Content::Leaf(leaf), tensor(dtype, len, Values::Special, &mut rng));
                let inputs: Vec<_> = (0..leaves).map(leaf).collect();
                check(&contract, &inputs, Content::Result);
            }
        }
    }
}

#[test]
fn fused_raw_leaves_give_the_laws_bits() {
    let mut rng = Rng(7);
    for leaves in [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 24, 33] {
        for dtype in Dtype::FLOATS {
            for order in [Order::Tree, Order::Exact] {
                for op in [ReduceOp::Sum, ReduceOp::Mean] {
                    let contract = Contract::new(ContractSpec::new(op, order, leaves, dtype)).unwrap();
                    for values in [Values::Close, Values::Special, Values::Spread] {
                        let inputs: Vec<_> = (0..leaves)
                            .map(|leaf| (Content::Leaf(leaf), tensor(dtype, 601, values, &mut rng)))
                            .collect();
                        check(&contract, &inputs, Content::Result);
                    }
                }
            }
        }
    }
}

/// Where the second is far below the first, as near to a tie as can be: what is rounded twice would show.
#[test]
fn two_f32_give_the_laws_bits_at_every_distance_and_tie() {
    let mut rng = Rng(11);
    let mut pair = [Vec::new(), Vec::new()];
    for distance in 0..64u32 {
        for exponent in [distance, distance + 1, 127, 190, 253, 254] {
            let mantissas = [0, 1, 2, 1 << 22, (1 << 22) + 1, (1 << 23) - 1, rng.below(1 << 23) as u32];
            for (first, second) in mantissas.iter().flat_map(|a| mantissas.map(|b| (*a, b))) {
                let sign = (rng.below(2) as u32) << 31;
                pair[0].extend((exponent << 23 | first).to_le_bytes());
                pair[1].extend((sign | (exponent.saturating_sub(distance) << 23) | second).to_le_bytes());
            }
        }
    }
    let inputs: Vec<_> = (0..).map(Content::Leaf).zip(pair).collect();
    let orders = [(Order::Tree, None), (Order::Tree, Some(Dtype::F32)), (Order::Exact, None)];
    for (order, accumulate) in orders {
        for divisor in [None, Some(1), Some(2), Some(3), Some(4)] {
            let op = if divisor.is_some() { ReduceOp::Mean } else { ReduceOp::Sum };
            let spec = ContractSpec { divisor, accumulate, ..ContractSpec::new(op, order, 2, Dtype::F32) };
            let contract = Contract::new(spec).unwrap();
            check(&contract, &inputs, Content::Result);
            let is_one_rounding =
                matches!(divisor, None | Some(1)) || divisor == Some(2) && accumulate.is_none();
            let contents = [Content::Leaf(0), Content::Leaf(1)];
            let prepared = Kernels::best().prepare(&contract, &contents, Content::Result).unwrap();
            assert_eq!(prepared.can_keep(), is_one_rounding, "{contract}");
        }
    }
}

/// Each bf16 with others at many distances from it.
#[test]
fn two_bf16_give_the_laws_bits_at_every_distance_and_tie() {
    let mut rng = Rng(17);
    let first = 0..=u16::MAX;
    let second = first.clone().map(|bits| {
        let (distance, mantissa) = (rng.below(20) as u16, rng.below(128) as u16);
        let exponent = ((bits >> 7) & 0xff).saturating_sub(distance);
        (rng.below(2) as u16) << 15 | exponent << 7 | mantissa
    });
    let bytes = |bits: &mut dyn Iterator<Item = u16>| bits.flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let pair = [bytes(&mut first.clone()), bytes(&mut second.into_iter())];
    let inputs: Vec<_> = (0..).map(Content::Leaf).zip(pair).collect();
    for (order, accumulate) in [(Order::Tree, None), (Order::Tree, Some(Dtype::F64)), (Order::Exact, None)] {
        for divisor in [None, Some(1), Some(2)] {
            let op = if divisor.is_some() { ReduceOp::Mean } else { ReduceOp::Sum };
            let spec = ContractSpec { divisor, accumulate, ..ContractSpec::new(op, order, 2, Dtype::Bf16) };
            let contract = Contract::new(spec).unwrap();
            check(&contract, &inputs, Content::Result);
            let contents = [Content::Leaf(0), Content::Leaf(1)];
            let prepared = Kernels::best().prepare(&contract, &contents, Content::Result).unwrap();
            let is_one_pass = divisor != Some(2) || contract.dtype_acc() == Some(Dtype::F32);
            assert_eq!(prepared.can_keep(), is_one_pass, "{contract}");
        }
    }
}

/// From the largest, which a divisor makes small, down to the subnormals, which it rounds.
#[test]
fn a_mean_by_any_power_of_two_gives_the_laws_bits_at_every_exponent() {
    let mut rng = Rng(13);
    for dtype in [Dtype::F32, Dtype::F64] {
        let (exponents, mantissa) = if dtype == Dtype::F32 { (256, 23) } else { (2048, 52) };
        let ends =
            |exponent: &u64| *exponent < 140 || exponents - exponent < 4 || exponent.is_multiple_of(64);
        let leaf: Vec<u8> = (0..exponents)
            .filter(ends)
            .flat_map(|exponent| {
                let mantissas =
                    [0, 1, 1 << (mantissa - 1), (1 << mantissa) - 1, rng.next() % (1 << mantissa)];
                mantissas.map(|bits| (rng.below(2) << (8 * dtype.size() - 1)) | exponent << mantissa | bits)
            })
            .flat_map(|bits| bits.to_le_bytes().into_iter().take(dtype.size()))
            .collect();
        for power in 0..64 {
            for (order, accumulate) in [(Order::Tree, Some(dtype)), (Order::Tree, None), (Order::Exact, None)]
            {
                let divisor = Some(1 << power);
                let spec = ContractSpec::new(ReduceOp::Mean, order, 1, dtype);
                let contract = Contract::new(ContractSpec { divisor, accumulate, ..spec }).unwrap();
                check(&contract, &[(Content::Leaf(0), leaf.clone())], Content::Result);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn random_tilings_give_the_laws_bits(leaves in 1u32..70, len in 1usize..40, which in 0usize..4, seed: u64) {
        let values = [Values::Any, Values::Close, Values::Special, Values::Spread][which];
        sweep(leaves, len, values, seed);
    }
}

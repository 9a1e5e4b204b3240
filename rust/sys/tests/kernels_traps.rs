//! The traps of summing: where f64 stops being wide enough, quotients that land on the border of two
//! results, zeros of both signs, infinities and NaNs. Every instruction set, a lane for each case.

use isobit_core::law::fold;
use isobit_core::schedule::Content;
use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp, float};
use isobit_sys::{Input, Kernels};

fn contract(op: ReduceOp, order: Order, leaves: usize, dtype: Dtype, out: Option<Dtype>) -> Contract {
    let spec = ContractSpec { out_dtype: out, ..ContractSpec::new(op, order, leaves as u32, dtype) };
    Contract::new(spec).expect("a reduction of floats")
}

/// Reduces lanes, each the bits of its leaves, and gives the bits of the results, which must be the
/// law's on every instruction set.
fn reduce(contract: &Contract, lanes: &[Vec<u64>]) -> Vec<u64> {
    let dtype = contract.dtype_in();
    let leaves: Vec<Vec<u8>> = (0..contract.leaves() as usize)
        .map(|leaf| {
            lanes.iter().flat_map(|lane| lane[leaf].to_le_bytes().into_iter().take(dtype.size())).collect()
        })
        .collect();
    let slices: Vec<(Content, &[u8])> =
        (0..).map(Content::Leaf).zip(leaves.iter().map(Vec::as_slice)).collect();
    let inputs: Vec<Input> =
        slices.iter().map(|(content, bytes)| Input { content: *content, span: (*bytes).into() }).collect();
    let expected = fold(contract, &slices, Content::Result);
    let size = contract.dtype_out().size();
    for kernels in Kernels::available() {
        let mut out = vec![0; expected.len()];
        kernels.reduce(contract, &inputs, Content::Result, out.as_mut_slice().into()).unwrap();
        for ((found, expected), lane) in out.chunks_exact(size).zip(expected.chunks_exact(size)).zip(lanes) {
            let (found, expected) = (float::read_bits(found), float::read_bits(expected));
            let name = kernels.name();
            assert_eq!(found, expected, "{name}: {contract}: {lane:#x?} gives {found:#x}, not {expected:#x}");
        }
    }
    expected.chunks_exact(size).map(float::read_bits).collect()
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % end
    }
}

/// `dtype`'s number of `exponent` with a mantissa that is full, or has its last bit only, or any.
fn number(dtype: Dtype, exponent: i32, rng: &mut Rng) -> u64 {
    let mantissa_bits = if dtype == Dtype::Bf16 { 7 } else { 23 };
    let mantissa = match rng.below(3) {
        0 => (1 << mantissa_bits) - 1,
        1 => 1,
        _ => rng.below(1 << mantissa_bits) | 1,
    };
    let sign = rng.below(2) << (8 * dtype.size() - 1);
    sign | (((exponent + 127) as u64) << mantissa_bits) | mantissa
}

#[test]
fn sums_about_the_limit_of_the_exponents_spread_are_exact() {
    let mut rng = Rng(5);
    for (dtype, limit) in [(Dtype::F32, 29), (Dtype::Bf16, 45)] {
        for leaves in 2..=9usize {
            let limit = limit - leaves.next_power_of_two().ilog2() as i32;
            for spread in limit - 1..=limit + 4 {
                let lanes: Vec<Vec<u64>> = (0..520)
                    .map(|_| {
                        let top = rng.below(60) as i32 - 20;
                        let mut lane: Vec<u64> = (0..leaves)
                            .map(|_| {
                                let low = rng.below(3) == 0;
                                number(dtype, if low { top - spread } else { top }, &mut rng)
                            })
                            .collect();
                        lane[0] = number(dtype, top, &mut rng);
                        lane[1] = number(dtype, top - spread, &mut rng);
                        if leaves > 2 && rng.below(2) == 0 {
                            // What is left is the low numbers, to their last bit.
                            lane[leaves - 1] = lane[0] ^ (1 << (8 * dtype.size() - 1));
                        }
                        let turn = rng.below(leaves as u64) as usize;
                        lane.rotate_left(turn);
                        lane
                    })
                    .collect();
                for out in [None, Some(Dtype::F64)] {
                    reduce(&contract(ReduceOp::Sum, Order::Exact, leaves, dtype, out), &lanes);
                }
            }
        }
    }
}

#[test]
fn one_lane_beyond_the_spread_does_not_disturb_its_neighbours() {
    let bits = |value: f32| u64::from(value.to_bits());
    for far in [0, 1, 15, 16, 511, 512, 599] {
        let mut lanes = vec![vec![bits(1.0), bits(2.0f32.powi(-20)), bits(-1.0)]; 600];
        lanes[far] = vec![bits(2.0f32.powi(100)), bits(1.0), bits(-2.0f32.powi(100))];
        let found = reduce(&contract(ReduceOp::Sum, Order::Exact, 3, Dtype::F32, None), &lanes);
        for (lane, found) in found.into_iter().enumerate() {
            assert_eq!(found, bits(if lane == far { 1.0 } else { 2.0f32.powi(-20) }), "lane {lane}");
        }
    }
}

#[test]
fn means_beside_the_middle_of_two_results_round_to_their_own_side() {
    let f32_bits = |value: f64| {
        assert_eq!(f64::from(value as f32), value, "the test's numbers are exact");
        u64::from((value as f32).to_bits())
    };
    let mut rng = Rng(9);
    for leaves in [4u32, 5, 7] {
        for divisor in [1u64, 3, 5, 7, 10, 12] {
            let mut lanes = Vec::new();
            let mut results = Vec::new();
            for _ in 0..300 {
                // An odd number of 25 bits is the middle of two f32.
                let lower = (1 << 23) | rng.below(1 << 23);
                let middle = 2 * lower + 1;
                let total = (middle * divisor) as f64;
                let high = f64::from(total as f32);
                for side in [-1.0, 0.0, 1.0] {
                    let tiny = side * 2f64.powi(-(30 + rng.below(60) as i32));
                    let mut lane = vec![f32_bits(0.0); leaves as usize];
                    lane[0] = f32_bits(high);
                    lane[1] = f32_bits(total - high);
                    lane[2] = f32_bits(tiny);
                    let turn = rng.below(u64::from(leaves)) as usize;
                    lane.rotate_left(turn);
                    lanes.push(lane);
                    let even = lower + (lower & 1);
                    let result = if side < 0.0 {
                        lower
                    } else if side > 0.0 {
                        lower + 1
                    } else {
                        even
                    };
                    results.push(f32_bits((2 * result) as f64));
                }
            }
            for order in [Order::Exact, Order::Tree] {
                let mut spec = ContractSpec::new(ReduceOp::Mean, order, leaves, Dtype::F32);
                spec.divisor = Some(divisor);
                let found = reduce(&Contract::new(spec).unwrap(), &lanes);
                if order == Order::Exact {
                    assert_eq!(found, results, "divisor {divisor}");
                }
            }
        }
    }
}

#[test]
fn a_sum_is_minus_zero_only_if_every_leaf_is() {
    for dtype in Dtype::FLOATS {
        let minus = 1u64 << (8 * dtype.size() - 1);
        let one = float::from_f64(dtype, 1.0);
        for leaves in [1, 2, 3, 7, 8, 9, 17, 70] {
            // Only -0; a +0 at each place; only +0; opposites among -0.
            let mut lanes = vec![vec![minus; leaves]; 20];
            let mut expected = vec![minus; 20];
            for place in 0..leaves {
                let mut lane = vec![minus; leaves];
                lane[place] = 0;
                lanes.push(lane);
                expected.push(0);
            }
            lanes.push(vec![0; leaves]);
            expected.push(0);
            if leaves > 1 {
                let mut lane = vec![minus; leaves];
                (lane[0], lane[leaves - 1]) = (one, one | minus);
                lanes.push(lane);
                expected.push(0);
            }
            for op in [ReduceOp::Sum, ReduceOp::Mean] {
                for order in [Order::Tree, Order::Exact] {
                    let found = reduce(&contract(op, order, leaves, dtype, None), &lanes);
                    assert_eq!(found, expected, "{op} of {leaves} {dtype} in {order} order");
                }
            }
        }
    }
}

#[test]
fn a_sum_of_minus_zeros_beside_numbers_that_need_the_second_tier_is_minus_zero() {
    let bits = |value: f32| u64::from(value.to_bits());
    let mut lanes = vec![vec![bits(-0.0); 3]; 40];
    lanes.push(vec![bits(1e30), bits(1e-30), bits(-1e30)]);
    lanes.push(vec![bits(1e30), bits(-1e30), bits(-0.0)]);
    let found = reduce(&contract(ReduceOp::Sum, Order::Exact, 3, Dtype::F32, None), &lanes);
    assert_eq!(found[..40], vec![bits(-0.0); 40]);
    assert_eq!(found[40..], [bits(1e-30), bits(0.0)]);
}

#[test]
fn infinities_and_nans_stay_in_their_lanes_and_leave_canonical() {
    for dtype in [Dtype::F16, Dtype::Bf16, Dtype::F32, Dtype::F64] {
        let of = |value: f64| float::from_f64(dtype, value);
        let sign = 1u64 << (8 * dtype.size() - 1);
        let (inf, nan, one) = (of(f64::INFINITY), of(f64::NAN), of(1.0));
        let max = inf - 1;
        let signalling = inf | 1;
        let (far, near) = match dtype {
            Dtype::F16 => (of(32768.0), of(2f64.powi(-24))),
            _ => (of(2f64.powi(100)), of(2f64.powi(-100))),
        };
        let cases = [
            ([inf, one, one], inf),
            ([inf | sign, one, far], inf | sign),
            ([inf, one, inf | sign], nan),
            ([one, nan | sign, one], nan),
            ([one, one, signalling], nan),
            ([signalling | sign, inf, one], nan),
            ([far, near, inf], inf),
            ([far, near, nan], nan),
            ([far, near, far | sign], near),
            ([max, max, max | sign], max),
            ([max, max, one], inf),
            ([max | sign, max | sign, max | sign], inf | sign),
            ([one, one, one], of(3.0)),
        ];
        let lanes: Vec<Vec<u64>> = (0..700).map(|lane| cases[lane * 7 % cases.len()].0.to_vec()).collect();
        let expected: Vec<u64> = (0..700).map(|lane| cases[lane * 7 % cases.len()].1).collect();
        assert_eq!(
            reduce(&contract(ReduceOp::Sum, Order::Exact, 3, dtype, None), &lanes),
            expected,
            "{dtype}"
        );
        reduce(&contract(ReduceOp::Mean, Order::Exact, 3, dtype, None), &lanes);
        reduce(&contract(ReduceOp::Sum, Order::Tree, 3, dtype, None), &lanes);
        reduce(&contract(ReduceOp::Prod, Order::Tree, 3, dtype, None), &lanes);
    }
}

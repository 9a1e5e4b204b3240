//! Whatever floating-point environment the caller has armed, the kernels give the law's bits and
//! leave it as it was.
#![cfg(target_arch = "x86_64")]

use std::arch::asm;

use isobit_core::law::fold;
use isobit_core::schedule::Content;
use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp, float};
use isobit_sys::{Input, Kernels};

fn read_mxcsr() -> u32 {
    let mut value = 0u32;
    // SAFETY: stores MXCSR into the four bytes pointed to.
    unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
    value
}

fn write_mxcsr(value: u32) {
    // SAFETY: loads a valid MXCSR.
    unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, preserves_flags)) };
}

/// Runs `work` with MXCSR armed; the control bits must be the same afterwards.
fn armed(value: u32, work: impl FnOnce()) {
    let before = read_mxcsr();
    write_mxcsr(value);
    work();
    let after = read_mxcsr();
    write_mxcsr(before);
    assert_eq!(after & !0x3f, value, "the caller's environment was changed");
}

/// FTZ and DAZ, and each rounding direction.
const ENVIRONMENTS: [u32; 5] = [0x9fc0, 0x3f80, 0x5f80, 0x7f80, 0xffc0];

#[test]
fn reductions_ignore_the_callers_floating_point_environment() {
    // Subnormals of f32 and f64, numbers whose sums are inexact, and sums that underflow.
    let values = [1e-42, -3e-41, 5e-324, 1.0 / 3.0, 1e-17, -1.2e-38, 1.1e-38, 2e-308, 0.1, 1e8];
    for dtype in Dtype::FLOATS {
        for order in [Order::Tree, Order::Exact] {
            for op in [ReduceOp::Sum, ReduceOp::Mean] {
                let contract = Contract::new(ContractSpec::new(op, order, 3, dtype)).unwrap();
                let leaves: Vec<Vec<u8>> = (0..3)
                    .map(|leaf| {
                        (0..40)
                            .flat_map(|i| {
                                let bits = float::from_f64(dtype, values[(i * (leaf + 1) + leaf) % 10]);
                                bits.to_le_bytes().into_iter().take(dtype.size())
                            })
                            .collect()
                    })
                    .collect();
                let slices: Vec<(Content, &[u8])> =
                    (0..).map(Content::Leaf).zip(leaves.iter().map(Vec::as_slice)).collect();
                let expected = fold(&contract, &slices, Content::Result);
                let inputs: Vec<Input> = slices
                    .iter()
                    .map(|(content, bytes)| Input { content: *content, span: (*bytes).into() })
                    .collect();
                for kernels in Kernels::available() {
                    for environment in ENVIRONMENTS {
                        let mut out = vec![0; expected.len()];
                        armed(environment, || {
                            kernels
                                .reduce(&contract, &inputs, Content::Result, out.as_mut_slice().into())
                                .unwrap();
                        });
                        assert_eq!(out, expected, "{}: {contract} under {environment:#x}", kernels.name());
                    }
                }
            }
        }
    }
}

#[test]
fn conversions_ignore_the_callers_floating_point_environment() {
    let patterns: Vec<u64> =
        (0..2000u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (i % 24)).collect();
    let input: Vec<u8> = patterns.iter().flat_map(|bits| bits.to_le_bytes()).collect();
    for from in [Dtype::F32, Dtype::F64] {
        let len = input.len() / from.size();
        for to in Dtype::FLOATS {
            for kernels in Kernels::available() {
                for environment in ENVIRONMENTS {
                    let mut out = vec![0; len * to.size()];
                    armed(environment, || {
                        kernels.convert(from, to, input.as_slice().into(), out.as_mut_slice().into());
                    });
                    for (bits, found) in input.chunks_exact(from.size()).zip(out.chunks_exact(to.size())) {
                        let expected = float::convert(from, float::read_bits(bits), to);
                        assert_eq!(float::read_bits(found), expected, "{}: {from} to {to}", kernels.name());
                    }
                }
            }
        }
    }
}

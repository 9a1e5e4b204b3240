//! Contracts: what is filled in, what is refused, and that the encoding is the contract.

mod law_support;

use isobit_core::ReduceOp::{Band, Max, Mean, Min, Prod, Sum};
use isobit_core::{Contract, ContractError, ContractSpec, Dtype, Order, ReduceOp};
use law_support::{exact, ops, spec, tree};
use proptest::prelude::*;

#[test]
fn names_and_codes_are_each_others_inverse() {
    for dtype in Dtype::ALL {
        assert_eq!(Dtype::from_name(dtype.name()), Some(dtype));
        assert_eq!(Dtype::from_code(dtype.code()), Some(dtype));
        assert_eq!(dtype.is_float(), Dtype::FLOATS.contains(&dtype));
        assert_eq!(dtype.to_string(), dtype.name());
    }
    for op in ReduceOp::ALL {
        assert_eq!(ReduceOp::from_name(op.name()), Some(*op));
        assert_eq!(ReduceOp::from_code(op.code()), Some(*op));
    }
    assert_eq!(Order::from_name("exact"), Some(Order::Exact));
    for unknown in [Dtype::from_code(0), Dtype::from_code(15), Dtype::from_name("float")] {
        assert_eq!(unknown, None);
    }
    assert!(!Dtype::Bool.is_integer() && Dtype::I8.is_integer() && Dtype::U64.is_integer());
}

#[test]
fn what_is_left_open_is_filled_in() {
    for (dtype, acc) in [
        (Dtype::F8E4m3fn, Dtype::F32),
        (Dtype::F8E5m2, Dtype::F32),
        (Dtype::F16, Dtype::F32),
        (Dtype::Bf16, Dtype::F32),
        (Dtype::F32, Dtype::F64),
        (Dtype::F64, Dtype::F64),
    ] {
        for op in [Sum, Mean, Prod] {
            assert_eq!(tree(op, 6, dtype).dtype_acc(), Some(acc), "{op} of {dtype}");
        }
        assert_eq!(tree(Min, 6, dtype).dtype_acc(), Some(dtype), "nothing rounds, nothing is widened");
        assert_eq!(exact(Sum, 6, dtype).dtype_acc(), None);
        assert_eq!(tree(Sum, 6, dtype).dtype_out(), dtype);
    }
    assert_eq!(tree(Mean, 6, Dtype::F16).divisor(), 6);
    assert_eq!(tree(Sum, 6, Dtype::F16).divisor(), 1);
}

#[test]
fn where_no_operation_rounds_the_two_orders_are_one_contract() {
    for dtype in Dtype::ALL {
        for op in ops(dtype) {
            let Ok(exact) = Contract::new(ContractSpec { order: Order::Exact, ..spec(op, 4, dtype) }) else {
                assert!(op == Prod && dtype.is_float(), "{op} of {dtype}");
                continue;
            };
            let rounds = dtype.is_float() && matches!(op, Sum | Mean);
            assert_eq!(exact == tree(op, 4, dtype), !rounds, "{op} of {dtype}");
        }
    }
}

#[test]
fn what_can_not_be_met_is_refused_with_the_reason() {
    let refused = |spec| Contract::new(spec).expect_err("no such contract");
    let wide_divisor = (1 << 24) + 1;
    let cases = [
        (spec(Sum, 0, Dtype::F32), "at least one leaf"),
        (spec(Band, 2, Dtype::F32), "integers and bool"),
        (spec(Mean, 2, Dtype::I32), "a mean needs floats"),
        (spec(Sum, 2, Dtype::Bool), "bor, band or bxor"),
        (ContractSpec { order: Order::Exact, ..spec(Prod, 2, Dtype::F32) }, "use order 'tree'"),
        (ContractSpec { accumulate: Some(Dtype::F32), ..spec(Sum, 2, Dtype::F64) }, "can't hold f64"),
        (ContractSpec { accumulate: Some(Dtype::F16), ..spec(Sum, 2, Dtype::F16) }, "can't hold f16"),
        (ContractSpec { accumulate: Some(Dtype::F64), ..spec(Sum, 2, Dtype::I32) }, "can't hold i32"),
        (
            ContractSpec { order: Order::Exact, accumulate: Some(Dtype::F64), ..spec(Sum, 2, Dtype::F32) },
            "leave accumulate out",
        ),
        (ContractSpec { out_dtype: Some(Dtype::I32), ..spec(Sum, 2, Dtype::F32) }, "out_dtype=i32"),
        (ContractSpec { out_dtype: Some(Dtype::I64), ..spec(Sum, 2, Dtype::I32) }, "out_dtype=i64"),
        (ContractSpec { divisor: Some(2), ..spec(Sum, 2, Dtype::F32) }, "'mean' only"),
        (ContractSpec { divisor: Some(0), ..spec(Mean, 2, Dtype::F32) }, "positive"),
        (ContractSpec { divisor: Some(wide_divisor), ..spec(Mean, 2, Dtype::Bf16) }, "use accumulate=f64"),
        (ContractSpec { divisor: Some(u64::MAX), ..spec(Mean, 2, Dtype::F64) }, "a double holds exactly"),
    ];
    for (spec, reason) in cases {
        let message = refused(spec).to_string();
        assert!(message.contains(reason), "{message}");
    }
    let one = ContractSpec { divisor: Some(2), ..spec(Sum, 2, Dtype::F32) };
    assert_eq!(refused(one), ContractError::DivisorWithoutMean { divisor: 2, op: Sum });
}

#[test]
fn a_divisor_must_be_one_that_the_accumulator_holds_exactly() {
    let allowed = |divisor, dtype| {
        Contract::new(ContractSpec { divisor: Some(divisor), ..spec(Mean, 2, dtype) }).is_ok()
    };
    for divisor in [1, 3, (1 << 24) - 1, 1 << 24, (1 << 24) + 2, 1 << 63, 3 << 62] {
        assert!(allowed(divisor, Dtype::Bf16), "{divisor}");
        assert_eq!(divisor as f32 as u64, divisor);
    }
    for divisor in [(1 << 24) + 1, (1 << 25) + 2, u64::MAX] {
        assert!(!allowed(divisor, Dtype::Bf16), "{divisor}");
    }
    assert!(allowed((1 << 53) - 1, Dtype::F32) && !allowed((1 << 53) + 1, Dtype::F32));
}

#[test]
fn a_difference_names_the_first_field_and_both_values() {
    let ours = tree(Sum, 8, Dtype::F32);
    assert_eq!(ours.difference(&ours), None);
    let others = [
        (tree(Max, 8, Dtype::F32), "op", "sum", "max"),
        (exact(Sum, 8, Dtype::F32), "order", "tree", "exact"),
        (tree(Sum, 8, Dtype::F16), "dtype", "f32", "f16"),
        (tree(Sum, 9, Dtype::F32), "number of leaves", "8", "9"),
        (law_support::tree_in(Dtype::F32, Sum, 8, Dtype::F32), "accumulate", "f64", "f32"),
    ];
    for (theirs, field, our_value, their_value) in others {
        let difference = ours.difference(&theirs).expect("they differ");
        assert_eq!(
            (difference.field, &*difference.ours, &*difference.theirs),
            (field, our_value, their_value)
        );
        assert_ne!(ours.digest(), theirs.digest());
    }
}

#[test]
fn a_contract_reads_as_a_sentence() {
    assert_eq!(
        tree(Mean, 64, Dtype::Bf16).to_string(),
        "tree mean of 64 leaves of bf16, accumulated in f32, divided by 64, to bf16 (law 1)"
    );
}

#[test]
fn a_foreign_law_version_survives_decoding_so_that_it_can_be_named() {
    let ours = tree(Sum, 8, Dtype::F32);
    let mut bytes = ours.encode();
    bytes[5] = 2;
    let theirs = Contract::decode(&bytes).expect("only the version is foreign");
    assert_eq!(ours.difference(&theirs).map(|d| d.field), Some("law version"));
}

fn any_spec() -> impl Strategy<Value = ContractSpec> {
    let accumulate = prop_oneof![Just(None), Just(Some(Dtype::F32)), Just(Some(Dtype::F64))];
    let out = prop_oneof![Just(None), (0..15usize).prop_map(|i| Some(Dtype::ALL[i]))];
    let divisor = prop_oneof![Just(None), (1u64..1000).prop_map(Some)];
    (0..8usize, any::<bool>(), 1u32.., 0..15usize, accumulate, out, divisor).prop_map(
        |(op, exact, leaves, dtype, accumulate, out_dtype, divisor)| ContractSpec {
            op: ReduceOp::ALL[op],
            order: if exact { Order::Exact } else { Order::Tree },
            leaves,
            dtype: Dtype::ALL[dtype],
            accumulate,
            out_dtype,
            divisor,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn decoding_an_encoding_gives_the_contract_back(spec in any_spec()) {
        if let Ok(contract) = Contract::new(spec) {
            prop_assert_eq!(Contract::decode(&contract.encode()), Some(contract));
        }
    }

    #[test]
    fn no_damaged_encoding_is_read_as_another_contract(spec in any_spec(), at in 0usize..24, to: u8) {
        if let Ok(contract) = Contract::new(spec) {
            let mut bytes = contract.encode();
            bytes[at] = to;
            if let Some(read) = Contract::decode(&bytes) {
                prop_assert_eq!(read.encode(), bytes);
            }
        }
    }
}

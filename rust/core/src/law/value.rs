//! One value of the tree: how a leaf becomes one, how two become one, how one becomes a result.

use crate::float;
use crate::{Contract, Dtype, ReduceOp};

/// The value of a node, in the arithmetic that the contract asks for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value {
    /// A float that is summed or multiplied in f32.
    F32(f32),
    /// A float that is summed or multiplied in f64.
    F64(f64),
    /// A float of which the least or greatest is wanted, as its order key; `None` is NaN.
    Ordered(Option<i64>),
    /// A signed integer. Sums and products wrap in 64 bits, which leaves the low bits, those of
    /// the dtype, as if they had wrapped there.
    Signed(i64),
    /// An unsigned integer, likewise.
    Unsigned(u64),
    /// A truth value.
    Bool(bool),
}

/// Reads an element of a tree reduction: of a leaf in `dtype_in`, of an inner node in `dtype_acc`.
/// No value changes here.
///
/// ```
/// use isobit_core::law::{Value, widen};
/// use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp};
/// let contract = Contract::new(ContractSpec::new(ReduceOp::Sum, Order::Tree, 8, Dtype::Bf16)).unwrap();
/// assert_eq!(widen(&contract, Dtype::Bf16, 0x3fc0), Value::F32(1.5));
/// ```
pub fn widen(contract: &Contract, dtype: Dtype, bits: u64) -> Value {
    let unused = 64 - 8 * dtype.size();
    match dtype {
        Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 => Value::Signed((bits << unused) as i64 >> unused),
        Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64 => Value::Unsigned(bits),
        Dtype::Bool => Value::Bool(bits != 0),
        _ if matches!(contract.op(), ReduceOp::Min | ReduceOp::Max) => {
            Value::Ordered(float::order_key(dtype, bits))
        }
        _ if contract.dtype_acc() == Some(Dtype::F32) => Value::F32(float::to_f32(dtype, bits)),
        _ => Value::F64(float::to_f64(dtype, bits)),
    }
}

/// Combines two nodes, the one of the lower leaves on the left. This is the only place where a
/// tree rounds before its root, once.
pub fn combine(op: ReduceOp, left: Value, right: Value) -> Value {
    use ReduceOp::{Band, Bor, Bxor, Max, Mean, Min, Prod, Sum};
    match (left, right) {
        (Value::F32(a), Value::F32(b)) => Value::F32(match op {
            Sum | Mean => a + b,
            Prod => a * b,
            _ => undefined(op, left),
        }),
        (Value::F64(a), Value::F64(b)) => Value::F64(match op {
            Sum | Mean => a + b,
            Prod => a * b,
            _ => undefined(op, left),
        }),
        (Value::Ordered(a), Value::Ordered(b)) => Value::Ordered(a.zip(b).map(|(a, b)| match op {
            Min => a.min(b),
            Max => a.max(b),
            _ => undefined(op, left),
        })),
        (Value::Signed(a), Value::Signed(b)) => Value::Signed(match op {
            Sum => a.wrapping_add(b),
            Prod => a.wrapping_mul(b),
            Min => a.min(b),
            Max => a.max(b),
            Band => a & b,
            Bor => a | b,
            Bxor => a ^ b,
            Mean => undefined(op, left),
        }),
        (Value::Unsigned(a), Value::Unsigned(b)) => Value::Unsigned(match op {
            Sum => a.wrapping_add(b),
            Prod => a.wrapping_mul(b),
            Min => a.min(b),
            Max => a.max(b),
            Band => a & b,
            Bor => a | b,
            Bxor => a ^ b,
            Mean => undefined(op, left),
        }),
        (Value::Bool(a), Value::Bool(b)) => Value::Bool(match op {
            Min | Band => a & b,
            Max | Bor => a | b,
            Bxor => a ^ b,
            _ => undefined(op, left),
        }),
        _ => panic!("{left:?} and {right:?} are values of different contracts"),
    }
}

fn undefined(op: ReduceOp, value: Value) -> ! {
    panic!("op '{op}' on {value:?}: no contract allows it")
}

/// The bit pattern in `dtype_acc` by which an inner node travels. A NaN is the canonical one, so
/// that nodes too are the same bits everywhere.
pub fn node_bits(contract: &Contract, value: Value) -> u64 {
    let acc = contract.dtype_acc().expect("the tree order has an accumulator");
    pattern(value, contract.dtype_in(), acc)
}

/// The result, from the root: for a mean one division in `dtype_acc`; then one rounding to
/// `dtype_out`, where a NaN becomes the canonical one.
pub fn finish(contract: &Contract, root: Value) -> u64 {
    // The contract has checked that `dtype_acc` holds the divisor exactly.
    let value = match (contract.op(), root) {
        (ReduceOp::Mean, Value::F32(sum)) => Value::F32(sum / contract.divisor() as f32),
        (ReduceOp::Mean, Value::F64(sum)) => Value::F64(sum / contract.divisor() as f64),
        _ => root,
    };
    pattern(value, contract.dtype_in(), contract.dtype_out())
}

/// The pattern of `dtype` nearest to a value; `ordered_as` is the dtype of order keys.
fn pattern(value: Value, ordered_as: Dtype, dtype: Dtype) -> u64 {
    let kept = u64::MAX >> (64 - 8 * dtype.size());
    match value {
        Value::F32(value) => float::from_f32(dtype, value),
        Value::F64(value) => float::from_f64(dtype, value),
        Value::Ordered(key) => float::convert(ordered_as, float::from_order_key(ordered_as, key), dtype),
        Value::Signed(value) => value as u64 & kept,
        Value::Unsigned(value) => value & kept,
        Value::Bool(value) => u64::from(value),
    }
}

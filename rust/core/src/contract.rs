//! The contract of a reduction: everything that decides its bits, and nothing else.
//!
//! World size, transport, algorithm, chunk size, threads and SIMD width are not in it.

use std::fmt;

use thiserror::Error;

use crate::{Dtype, Order, ReduceOp};

/// The version of the value law. Ranks that follow different laws refuse to work together.
pub const LAW_VERSION: u8 = 1;

/// Bytes of an encoded contract.
pub const CONTRACT_BYTES: usize = 24;

/// What a caller asks for; [`Contract::new`] checks it and fills in what is left open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContractSpec {
    /// The operation.
    pub op: ReduceOp,
    /// The order.
    pub order: Order,
    /// The number of leaves, at least 1.
    pub leaves: u32,
    /// The dtype of every leaf.
    pub dtype: Dtype,
    /// The accumulator, where the default is not wanted: `F32` or `F64`.
    pub accumulate: Option<Dtype>,
    /// The dtype of the result; the leaves' dtype if open.
    pub out_dtype: Option<Dtype>,
    /// What a mean divides by; the number of leaves if open.
    pub divisor: Option<u64>,
}

impl ContractSpec {
    /// A specification with everything optional left open.
    pub fn new(op: ReduceOp, order: Order, leaves: u32, dtype: Dtype) -> ContractSpec {
        ContractSpec { op, order, leaves, dtype, accumulate: None, out_dtype: None, divisor: None }
    }
}

/// Why a contract can't be: each says what was asked, why it can't be had, and what to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ContractError {
    /// No leaves.
    #[error("a reduction needs at least one leaf")]
    NoLeaves,
    /// The operation is not defined on the dtype.
    #[error("op '{op}' is not defined on dtype {dtype}: {hint}")]
    OpNotDefined {
        /// The operation asked for.
        op: ReduceOp,
        /// The dtype it was asked for.
        dtype: Dtype,
        /// What to do instead.
        hint: &'static str,
    },
    /// The exact order exists for sums and means of floats, and where any order is exact anyway.
    #[error("order 'exact' is not defined for op '{op}' on {dtype}: use order 'tree'")]
    OrderNotDefined {
        /// The operation asked for.
        op: ReduceOp,
        /// The dtype it was asked for.
        dtype: Dtype,
    },
    /// The accumulator can't hold the leaves exactly, or is no accumulator.
    #[error(
        "accumulate={accumulate} can't hold {dtype} exactly: use accumulate=f32 for 8- and 16-bit floats, f64 for any float"
    )]
    AccumulatorTooNarrow {
        /// The accumulator asked for.
        accumulate: Dtype,
        /// The leaves' dtype.
        dtype: Dtype,
    },
    /// The exact order has no accumulator.
    #[error("order 'exact' rounds once and has no accumulator: leave accumulate out")]
    AccumulatorWithExact,
    /// The result can't be had in that dtype.
    #[error(
        "out_dtype={out} does not go with leaves of {dtype}: floats give any float, other dtypes give themselves"
    )]
    OutDtype {
        /// The dtype asked for.
        out: Dtype,
        /// The leaves' dtype.
        dtype: Dtype,
    },
    /// A divisor for an operation that does not divide.
    #[error("divisor={divisor} goes with op 'mean' only, not with '{op}'")]
    DivisorWithoutMean {
        /// The divisor given.
        divisor: u64,
        /// The operation asked for.
        op: ReduceOp,
    },
    /// A divisor that the law can't divide by.
    #[error("divisor={divisor} is not a positive integer that {accumulate} holds exactly: {hint}")]
    Divisor {
        /// The divisor given.
        divisor: u64,
        /// The type in which the division is done.
        accumulate: Dtype,
        /// What to do instead.
        hint: &'static str,
    },
}

/// One checked contract. Two ranks work together only if theirs are equal.
///
/// ```
/// use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp};
/// let mut spec = ContractSpec::new(ReduceOp::Mean, Order::Tree, 64, Dtype::Bf16);
/// spec.out_dtype = Some(Dtype::F32);
/// let contract = Contract::new(spec).unwrap();
/// assert_eq!(contract.dtype_acc(), Some(Dtype::F32));
/// assert_eq!(contract.divisor(), 64);
/// assert_eq!(Contract::decode(&contract.encode()), Some(contract));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Contract {
    op: ReduceOp,
    order: Order,
    leaves: u32,
    dtype_in: Dtype,
    dtype_acc: Option<Dtype>,
    dtype_out: Dtype,
    divisor: u64,
    law_version: u8,
}

impl Contract {
    /// Checks `spec` and fills in what it leaves open.
    ///
    /// The accumulator is f32 for 8- and 16-bit floats and f64 for f32 and f64. Where no
    /// operation rounds (integers, bool, min, max, bitwise) it is the leaves' own dtype and the
    /// two orders are one, so the contract says `Order::Tree` then.
    pub fn new(spec: ContractSpec) -> Result<Contract, ContractError> {
        let ContractSpec { op, order, leaves, dtype, .. } = spec;
        if leaves == 0 {
            return Err(ContractError::NoLeaves);
        }
        check_defined(op, dtype)?;
        let dtype_out = spec.out_dtype.unwrap_or(dtype);
        if dtype_out != dtype && !(dtype.is_float() && dtype_out.is_float()) {
            return Err(ContractError::OutDtype { out: dtype_out, dtype });
        }
        let rounds = dtype.is_float() && matches!(op, ReduceOp::Sum | ReduceOp::Mean | ReduceOp::Prod);
        if order == Order::Exact && rounds && op == ReduceOp::Prod {
            return Err(ContractError::OrderNotDefined { op, dtype });
        }
        let wanted = spec.accumulate;
        if let Some(accumulate) = wanted
            && (!accumulator_holds(accumulate, dtype) || !dtype.is_float())
        {
            return Err(ContractError::AccumulatorTooNarrow { accumulate, dtype });
        }
        let (order, dtype_acc) = match (order, rounds) {
            (_, false) => (Order::Tree, Some(dtype)),
            (Order::Tree, true) => (Order::Tree, Some(wanted.unwrap_or(default_accumulator(dtype)))),
            (Order::Exact, true) if wanted.is_some() => return Err(ContractError::AccumulatorWithExact),
            (Order::Exact, true) => (Order::Exact, None),
        };
        let divisor = match (op, spec.divisor) {
            (ReduceOp::Mean, given) => {
                let divisor = given.unwrap_or(u64::from(leaves));
                check_divisor(divisor, dtype_acc.unwrap_or(Dtype::F64))?;
                divisor
            }
            (_, Some(divisor)) => return Err(ContractError::DivisorWithoutMean { divisor, op }),
            (_, None) => 1,
        };
        Ok(Contract {
            op,
            order,
            leaves,
            dtype_in: dtype,
            dtype_acc,
            dtype_out,
            divisor,
            law_version: LAW_VERSION,
        })
    }

    /// The operation.
    pub fn op(&self) -> ReduceOp {
        self.op
    }

    /// The order; `Tree` wherever the two orders give the same bits.
    pub fn order(&self) -> Order {
        self.order
    }

    /// The number of leaves.
    pub fn leaves(&self) -> u32 {
        self.leaves
    }

    /// The dtype of the leaves.
    pub fn dtype_in(&self) -> Dtype {
        self.dtype_in
    }

    /// The dtype of the tree's inner nodes; none in the exact order.
    pub fn dtype_acc(&self) -> Option<Dtype> {
        self.dtype_acc
    }

    /// The dtype of the result.
    pub fn dtype_out(&self) -> Dtype {
        self.dtype_out
    }

    /// What the root is divided by; 1 unless the operation is a mean.
    pub fn divisor(&self) -> u64 {
        self.divisor
    }

    /// The encoding on the wire: `op, order, in, acc (0 if none), out, law version, 2 zero bytes,
    /// leaves u32, 4 zero bytes, divisor u64`, little-endian.
    pub fn encode(&self) -> [u8; CONTRACT_BYTES] {
        let mut bytes = [0; CONTRACT_BYTES];
        bytes[0] = self.op.code();
        bytes[1] = self.order.code();
        bytes[2] = self.dtype_in.code();
        bytes[3] = self.dtype_acc.map_or(0, Dtype::code);
        bytes[4] = self.dtype_out.code();
        bytes[5] = self.law_version;
        bytes[8..12].copy_from_slice(&self.leaves.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.divisor.to_le_bytes());
        bytes
    }

    /// Reads an encoding back; `None` if it is not one that [`Contract::new`] could have made,
    /// except that a foreign law version is kept, so that it can be named.
    pub fn decode(bytes: &[u8; CONTRACT_BYTES]) -> Option<Contract> {
        let op = ReduceOp::from_code(bytes[0])?;
        let order = Order::from_code(bytes[1])?;
        let dtype = Dtype::from_code(bytes[2])?;
        let acc = match bytes[3] {
            0 => None,
            code => Some(Dtype::from_code(code)?),
        };
        let out = Dtype::from_code(bytes[4])?;
        let leaves = u32::from_le_bytes(bytes[8..12].try_into().ok()?);
        let divisor = u64::from_le_bytes(bytes[16..24].try_into().ok()?);
        let spec = ContractSpec {
            op,
            order,
            leaves,
            dtype,
            accumulate: acc.filter(|acc| *acc != dtype || *acc == Dtype::F32 || *acc == Dtype::F64),
            out_dtype: Some(out),
            divisor: (op == ReduceOp::Mean).then_some(divisor),
        };
        let mut contract = Contract::new(spec).ok()?;
        contract.law_version = bytes[5];
        (contract.encode() == *bytes).then_some(contract)
    }

    /// The 64-bit digest that every header carries: XXH3-64 of the encoding.
    pub fn digest(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&self.encode())
    }

    /// The first field in which two contracts differ, with both values, for messages.
    pub fn difference(&self, other: &Contract) -> Option<Difference> {
        fn text<T: fmt::Display>(value: T) -> String {
            value.to_string()
        }
        let acc = |c: &Contract| c.dtype_acc.map_or("none".to_owned(), text);
        let fields = [
            ("law version", text(self.law_version), text(other.law_version)),
            ("op", text(self.op), text(other.op)),
            ("order", text(self.order), text(other.order)),
            ("dtype", text(self.dtype_in), text(other.dtype_in)),
            ("number of leaves", text(self.leaves), text(other.leaves)),
            ("accumulate", acc(self), acc(other)),
            ("out_dtype", text(self.dtype_out), text(other.dtype_out)),
            ("divisor", text(self.divisor), text(other.divisor)),
        ];
        fields.into_iter().find(|(_, ours, theirs)| ours != theirs).map(|(field, ours, theirs)| Difference {
            field,
            ours,
            theirs,
        })
    }
}

impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of {} leaves of {}", self.order, self.op, self.leaves, self.dtype_in)?;
        if let Some(acc) = self.dtype_acc {
            write!(f, ", accumulated in {acc}")?;
        }
        if self.op == ReduceOp::Mean {
            write!(f, ", divided by {}", self.divisor)?;
        }
        write!(f, ", to {} (law {})", self.dtype_out, self.law_version)
    }
}

/// One field in which two contracts differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The field's name, as a caller knows it.
    pub field: &'static str,
    /// This side's value.
    pub ours: String,
    /// The other side's value.
    pub theirs: String,
}

fn check_defined(op: ReduceOp, dtype: Dtype) -> Result<(), ContractError> {
    let hint = match op {
        ReduceOp::Band | ReduceOp::Bor | ReduceOp::Bxor if dtype.is_float() => {
            "bitwise operations take integers and bool"
        }
        ReduceOp::Mean if !dtype.is_float() => {
            "a mean needs floats; sum and divide the result, or cast first"
        }
        ReduceOp::Sum | ReduceOp::Prod if dtype == Dtype::Bool => {
            "use bor, band or bxor, or cast to an integer to count"
        }
        _ => return Ok(()),
    };
    Err(ContractError::OpNotDefined { op, dtype, hint })
}

fn default_accumulator(dtype: Dtype) -> Dtype {
    match dtype {
        Dtype::F32 | Dtype::F64 => Dtype::F64,
        _ => Dtype::F32,
    }
}

fn accumulator_holds(accumulate: Dtype, dtype: Dtype) -> bool {
    accumulate == Dtype::F64 || (accumulate == Dtype::F32 && dtype != Dtype::F64)
}

fn check_divisor(divisor: u64, accumulate: Dtype) -> Result<(), ContractError> {
    let digits = if accumulate == Dtype::F32 { 24 } else { 53 };
    let hint = match (divisor, accumulate) {
        (0, _) => "give a positive one",
        (_, Dtype::F32) => "use accumulate=f64",
        _ => "give one that a double holds exactly",
    };
    if divisor == 0 || (divisor >> divisor.trailing_zeros()).ilog2() >= digits {
        return Err(ContractError::Divisor { divisor, accumulate, hint });
    }
    Ok(())
}

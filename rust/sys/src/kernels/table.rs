//! Which loop serves which operation and dtype, for one instruction set.

use isobit_core::{Contract, Dtype, ReduceOp};

use super::block::{LoadFn, PassFn, StoreFn, load, pass, pass_through_f32, store_node, store_result};
use super::element::{self, Accumulator, Element};
use super::exact_block::{Plan, SumFn, sum};
use super::fold::{
    And, FloatMax, FloatMin, FloatProd, FloatSum, Fold, Max, Min, Or, Prod, Sum, Truth, WholeFold, Xor,
};
use super::isa::Isa;

/// The loops of one fold.
#[derive(Clone, Copy)]
pub(super) struct FoldLoops {
    pub(super) pass: PassFn,
    pub(super) store_node: StoreFn,
    pub(super) width: usize,
}

fn loops<I: Isa, F: Fold>() -> FoldLoops {
    FoldLoops { pass: pass::<I, F>, store_node: store_node::<I, F>, width: F::WIDTH }
}

/// The loops of `op` on leaves of `dtype` accumulated in `acc`.
pub(super) fn fold_loops<I: Isa>(op: ReduceOp, dtype: Dtype, acc: Dtype) -> FoldLoops {
    use ReduceOp as Op;
    match (op, dtype.is_float(), acc) {
        (Op::Sum | Op::Mean, true, Dtype::F32) => float_sum::<I, f32>(dtype),
        (Op::Sum | Op::Mean, true, _) => float_sum::<I, f64>(dtype),
        (Op::Prod, true, Dtype::F32) => float_prod::<I::Plain, f32>(dtype),
        (Op::Prod, true, _) => float_prod::<I::Plain, f64>(dtype),
        (Op::Min | Op::Max, true, _) => float_extremum::<I::Plain>(op, dtype),
        (Op::Min | Op::Max, false, _) => whole_extremum::<I::Plain>(op, dtype),
        _ if dtype == Dtype::Bool => match op {
            Op::Band => loops::<I::Plain, WholeFold<And<Truth>>>(),
            Op::Bor => loops::<I::Plain, WholeFold<Or<Truth>>>(),
            Op::Bxor => loops::<I::Plain, WholeFold<Xor<Truth>>>(),
            _ => undefined(op, dtype),
        },
        _ => whole::<I::Plain>(op, dtype),
    }
}

fn undefined(op: ReduceOp, dtype: Dtype) -> ! {
    unreachable!("no contract has {op} on {dtype}")
}

fn float_sum<I: Isa, A: Accumulator>(dtype: Dtype) -> FoldLoops {
    let through_f32 = |pass| FoldLoops { pass, ..loops::<I, FloatSum<element::F32, A, 8>>() };
    match dtype {
        Dtype::F8E4m3fn => through_f32(pass_through_f32::<I, element::F8E4m3fn, A>),
        Dtype::F8E5m2 => through_f32(pass_through_f32::<I, element::F8E5m2, A>),
        Dtype::F16 => through_f32(pass_through_f32::<I, element::F16, A>),
        Dtype::Bf16 if size_of::<A>() == 4 => loops::<I, FloatSum<element::Bf16, A, 8>>(),
        Dtype::Bf16 => through_f32(pass_through_f32::<I, element::Bf16, A>),
        Dtype::F32 => loops::<I, FloatSum<element::F32, A, 8>>(),
        _ => loops::<I, FloatSum<element::F64, f64, 8>>(),
    }
}

fn float_prod<I: Isa, A: Accumulator>(dtype: Dtype) -> FoldLoops {
    match dtype {
        Dtype::F8E4m3fn => loops::<I, FloatProd<element::F8E4m3fn, A>>(),
        Dtype::F8E5m2 => loops::<I, FloatProd<element::F8E5m2, A>>(),
        Dtype::F16 => loops::<I, FloatProd<element::F16, A>>(),
        Dtype::Bf16 => loops::<I, FloatProd<element::Bf16, A>>(),
        Dtype::F32 => loops::<I, FloatProd<element::F32, A>>(),
        _ => loops::<I, FloatProd<element::F64, f64>>(),
    }
}

macro_rules! by_dtype {
    ($op:expr, $dtype:expr, $min:ident, $max:ident, $wrap:ident; $($name:ident => $type:ty),*) => {
        match ($op, $dtype) {
            $((ReduceOp::Min, Dtype::$name) => loops::<I, $wrap!($min, $type)>(),
              (ReduceOp::Max, Dtype::$name) => loops::<I, $wrap!($max, $type)>(),)*
            _ => undefined($op, $dtype),
        }
    };
}

macro_rules! plain {
    ($fold:ident, $type:ty) => { $fold<$type> };
}

macro_rules! wrapped {
    ($fold:ident, $type:ty) => { WholeFold<$fold<$type>> };
}

fn float_extremum<I: Isa>(op: ReduceOp, dtype: Dtype) -> FoldLoops {
    by_dtype!(op, dtype, FloatMin, FloatMax, plain;
        F8E4m3fn => element::F8E4m3fn, F8E5m2 => element::F8E5m2, F16 => element::F16,
        Bf16 => element::Bf16, F32 => element::F32, F64 => element::F64)
}

fn whole_extremum<I: Isa>(op: ReduceOp, dtype: Dtype) -> FoldLoops {
    by_dtype!(op, dtype, Min, Max, wrapped;
        I8 => i8, I16 => i16, I32 => i32, I64 => i64, U8 => u8, U16 => u16, U32 => u32, U64 => u64, Bool => Truth)
}

fn whole<I: Isa>(op: ReduceOp, dtype: Dtype) -> FoldLoops {
    macro_rules! by_size {
        ($fold:ident) => {
            match dtype.size() {
                1 => loops::<I, WholeFold<$fold<u8>>>(),
                2 => loops::<I, WholeFold<$fold<u16>>>(),
                4 => loops::<I, WholeFold<$fold<u32>>>(),
                _ => loops::<I, WholeFold<$fold<u64>>>(),
            }
        };
    }
    match op {
        ReduceOp::Sum => by_size!(Sum),
        ReduceOp::Prod => by_size!(Prod),
        ReduceOp::Band => by_size!(And),
        ReduceOp::Bor => by_size!(Or),
        ReduceOp::Bxor => by_size!(Xor),
        _ => undefined(op, dtype),
    }
}

/// Accumulators of dtype `acc`, to results of `out`.
pub(super) fn result_store<I: Isa>(acc: Dtype, out: Dtype) -> StoreFn {
    fn of<I: Isa, A: Accumulator>(out: Dtype) -> StoreFn {
        match out {
            Dtype::F8E4m3fn => store_result::<I, A, element::F8E4m3fn>,
            Dtype::F8E5m2 => store_result::<I, A, element::F8E5m2>,
            Dtype::F16 => store_result::<I, A, element::F16>,
            Dtype::Bf16 => store_result::<I, A, element::Bf16>,
            Dtype::F32 => store_result::<I, A, element::F32>,
            _ => store_result::<I, A, element::F64>,
        }
    }
    if acc == Dtype::F32 { of::<I, f32>(out) } else { of::<I, f64>(out) }
}

/// Elements of `input`, to accumulators of dtype `acc`.
pub(super) fn float_load<I: Isa>(input: Dtype, acc: Dtype) -> LoadFn {
    fn of<I: Isa, A: Accumulator>(input: Dtype) -> LoadFn {
        match input {
            Dtype::F8E4m3fn => load::<I, A, element::F8E4m3fn>,
            Dtype::F8E5m2 => load::<I, A, element::F8E5m2>,
            Dtype::F16 => load::<I, A, element::F16>,
            Dtype::Bf16 => load::<I, A, element::Bf16>,
            Dtype::F32 => load::<I, A, element::F32>,
            _ => load::<I, f64, element::F64>,
        }
    }
    if acc == Dtype::F32 && input != Dtype::F64 { of::<I, f32>(input) } else { of::<I, f64>(input) }
}

/// The exact sums of raw leaves of `dtype`, unless only the law's own integers can do it.
pub(super) fn exact_sum<I: Isa>(contract: &Contract, leaves: usize) -> Option<(Plan, SumFn)> {
    fn of<I: Isa, E: Element>(contract: &Contract, leaves: usize) -> Option<(Plan, SumFn)> {
        let to_f64 = contract.dtype_out() == Dtype::F64;
        let fold = fold_loops::<I>(ReduceOp::Sum, contract.dtype_in(), Dtype::F64);
        Some((Plan::new::<E>(leaves, contract.divisor(), to_f64, fold.pass)?, sum::<I, E>))
    }
    match contract.dtype_in() {
        Dtype::F8E4m3fn => of::<I, element::F8E4m3fn>(contract, leaves),
        Dtype::F8E5m2 => of::<I, element::F8E5m2>(contract, leaves),
        Dtype::F16 => of::<I, element::F16>(contract, leaves),
        Dtype::Bf16 => of::<I, element::Bf16>(contract, leaves),
        Dtype::F32 => of::<I, element::F32>(contract, leaves),
        _ => of::<I, element::F64>(contract, leaves),
    }
}

//! What combining means for each operation and dtype: values that a loop can keep in registers.

use std::marker::PhantomData;

use super::element::{Accumulator, Bf16, Element, F8E4m3fn, F8E5m2, F16, F32, F64};

/// One operation on one dtype.
pub(super) trait Fold: 'static {
    /// A leaf's bits in memory.
    type Leaf: Copy;
    /// An inner node's bits in memory.
    type Node: Copy;
    /// What is combined.
    type Value: Copy;
    /// The same operation with inner nodes in the leaves' place: one loop serves both where they are
    /// of one type.
    type OfNodes: Fold<Leaf = Self::Node, Value = Self::Value>;

    /// How many leaves or nodes one loop may combine at most: 8 where speed matters, else 2, for
    /// the sake of the library's size.
    const WIDTH: usize;

    fn leaf(bits: Self::Leaf) -> Self::Value;
    fn combine(left: Self::Value, right: Self::Value) -> Self::Value;
    fn to_node(value: Self::Value) -> Self::Node;
}

/// The sum of floats of format `E` in accumulator `A`.
pub(super) struct FloatSum<E, A, const WIDTH: usize>(PhantomData<(E, A)>);

/// Their product.
pub(super) struct FloatProd<E, A>(PhantomData<(E, A)>);

macro_rules! float_fold {
    ($name:ident, $combine:ident, [$($generics:tt)*], E, $($args:ident),*; $width:expr) => {
        impl<E: Element, A: Accumulator $($generics)*> Fold for $name<E, $($args),*> {
            type Leaf = E::Bits;
            type Node = <A::Format as Element>::Bits;
            type Value = A;
            type OfNodes = $name<A::Format, $($args),*>;
            const WIDTH: usize = $width;

            #[inline(always)]
            fn leaf(bits: Self::Leaf) -> A {
                A::widen::<E>(bits)
            }

            #[inline(always)]
            fn combine(left: A, right: A) -> A {
                left.$combine(right)
            }

            #[inline(always)]
            fn to_node(value: A) -> Self::Node {
                value.narrow::<A::Format>()
            }
        }
    };
}
float_fold!(FloatSum, add, [, const WIDTH: usize], E, A, WIDTH; WIDTH);
float_fold!(FloatProd, mul, [], E, A; 2);

/// Floats as integers of the same order, for minimum and maximum. A NaN becomes the key beyond all
/// others, on the side that wins.
pub(super) trait Ordered: 'static {
    type Bits: Copy;
    type Key: Copy + Ord;

    fn key(bits: Self::Bits, nan: Self::Key) -> Self::Key;
    fn of_key(key: Self::Key, nan: Self::Key) -> Self::Bits;
    /// The key of a NaN for minimum and for maximum.
    const NAN_KEYS: (Self::Key, Self::Key);
}

macro_rules! ordered {
    ($name:ty, $bits:ty, $key:ty, $last_number:literal, $nan:literal) => {
        impl Ordered for $name {
            type Bits = $bits;
            type Key = $key;
            const NAN_KEYS: ($key, $key) = (<$key>::MIN, <$key>::MAX);

            #[inline(always)]
            fn key(bits: $bits, nan: $key) -> $key {
                let signed = bits as $key;
                let key = signed ^ ((signed >> (<$key>::BITS - 1)) & <$key>::MAX);
                if signed & <$key>::MAX > $last_number { nan } else { key }
            }

            #[inline(always)]
            fn of_key(key: $key, nan: $key) -> $bits {
                let signed = key ^ ((key >> (<$key>::BITS - 1)) & <$key>::MAX);
                (if key == nan { $nan } else { signed }) as $bits
            }
        }
    };
}
ordered!(F8E4m3fn, u8, i8, 0x7e, 0x7f);
ordered!(F8E5m2, u8, i8, 0x7c, 0x7e);
ordered!(F16, u16, i16, 0x7c00, 0x7e00);
ordered!(Bf16, u16, i16, 0x7f80, 0x7fc0);
ordered!(F32, u32, i32, 0x7f80_0000, 0x7fc0_0000);
ordered!(F64, u64, i64, 0x7ff0_0000_0000_0000, 0x7ff8_0000_0000_0000);

/// The minimum of floats.
pub(super) struct FloatMin<E>(PhantomData<E>);

/// Their maximum.
pub(super) struct FloatMax<E>(PhantomData<E>);

macro_rules! extremum {
    ($name:ident, $which:tt, $pick:ident) => {
        impl<E: Ordered> Fold for $name<E> {
            type Leaf = E::Bits;
            type Node = E::Bits;
            type Value = E::Key;
            type OfNodes = Self;
            const WIDTH: usize = 2;

            #[inline(always)]
            fn leaf(bits: E::Bits) -> E::Key {
                E::key(bits, E::NAN_KEYS.$which)
            }

            #[inline(always)]
            fn combine(left: E::Key, right: E::Key) -> E::Key {
                Ord::$pick(left, right)
            }

            #[inline(always)]
            fn to_node(value: E::Key) -> E::Bits {
                E::of_key(value, E::NAN_KEYS.$which)
            }
        }
    };
}
extremum!(FloatMin, 0, min);
extremum!(FloatMax, 1, max);

/// An operation on integers, or on bool.
pub(super) trait Whole: 'static {
    type Bits: Copy;

    /// What a leaf's bits, or a node's, mean.
    fn leaf(bits: Self::Bits) -> Self::Bits;
    fn combine(left: Self::Bits, right: Self::Bits) -> Self::Bits;
}

/// The fold of a [`Whole`].
pub(super) struct WholeFold<W>(PhantomData<W>);

impl<W: Whole> Fold for WholeFold<W> {
    type Leaf = W::Bits;
    type Node = W::Bits;
    type Value = W::Bits;
    type OfNodes = Self;
    const WIDTH: usize = 2;

    #[inline(always)]
    fn leaf(bits: W::Bits) -> W::Bits {
        W::leaf(bits)
    }

    #[inline(always)]
    fn combine(left: W::Bits, right: W::Bits) -> W::Bits {
        W::combine(left, right)
    }

    #[inline(always)]
    fn to_node(value: W::Bits) -> W::Bits {
        value
    }
}

/// Names of the operations on integers of type `T`.
pub(super) struct Sum<T>(PhantomData<T>);
pub(super) struct Prod<T>(PhantomData<T>);
pub(super) struct Min<T>(PhantomData<T>);
pub(super) struct Max<T>(PhantomData<T>);
pub(super) struct And<T>(PhantomData<T>);
pub(super) struct Or<T>(PhantomData<T>);
pub(super) struct Xor<T>(PhantomData<T>);

/// The type of a bool's byte.
#[derive(Clone, Copy)]
pub(super) struct Truth;

macro_rules! whole {
    ($op:ident, $($int:ty)*, |$left:ident, $right:ident| $combined:expr) => {
        $(impl Whole for $op<$int> {
            type Bits = $int;

            #[inline(always)]
            fn leaf(bits: $int) -> $int {
                bits
            }

            #[inline(always)]
            fn combine($left: $int, $right: $int) -> $int {
                $combined
            }
        })*
    };
}
whole!(Sum, u8 u16 u32 u64, |left, right| left.wrapping_add(right));
whole!(Prod, u8 u16 u32 u64, |left, right| left.wrapping_mul(right));
whole!(Min, u8 u16 u32 u64 i8 i16 i32 i64, |left, right| Ord::min(left, right));
whole!(Max, u8 u16 u32 u64 i8 i16 i32 i64, |left, right| Ord::max(left, right));
whole!(And, u8 u16 u32 u64, |left, right| left & right);
whole!(Or, u8 u16 u32 u64, |left, right| left | right);
whole!(Xor, u8 u16 u32 u64, |left, right| left ^ right);

macro_rules! truth {
    ($op:ident, |$left:ident, $right:ident| $combined:expr) => {
        impl Whole for $op<Truth> {
            type Bits = u8;

            #[inline(always)]
            fn leaf(bits: u8) -> u8 {
                u8::from(bits != 0)
            }

            #[inline(always)]
            fn combine($left: u8, $right: u8) -> u8 {
                $combined
            }
        }
    };
}
truth!(And, |left, right| left & right);
truth!(Or, |left, right| left | right);
truth!(Xor, |left, right| left ^ right);
// The minimum of truth values is `and`, the maximum `or`.
truth!(Min, |left, right| left & right);
truth!(Max, |left, right| left | right);

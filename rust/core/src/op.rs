//! Reduction operations and reduction orders.

use std::fmt;

macro_rules! coded_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $code:literal, $text:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum $name { $($(#[$vmeta])* $variant = $code,)* }

        impl $name {
            /// Every value, in the order of their codes.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            /// The name that Python, messages and vectors use.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }

            /// The value of that name.
            pub fn from_name(name: &str) -> Option<$name> {
                $name::ALL.iter().copied().find(|value| value.name() == name)
            }

            /// The code on the wire.
            pub const fn code(self) -> u8 {
                self as u8
            }

            /// The value of that wire code.
            pub fn from_code(code: u8) -> Option<$name> {
                $name::ALL.iter().copied().find(|value| value.code() == code)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}
pub(crate) use coded_enum;

coded_enum! {
    /// What a reduction does with two values.
    ReduceOp {
        /// Addition; integers wrap.
        Sum = 1, "sum";
        /// Addition, then one division by the contract's divisor.
        Mean = 2, "mean";
        /// Multiplication; integers wrap.
        Prod = 3, "prod";
        /// IEEE 754-2019 minimum: NaN wins, -0 < +0.
        Min = 4, "min";
        /// IEEE 754-2019 maximum: NaN wins, -0 < +0.
        Max = 5, "max";
        /// Bitwise and; logical for bool.
        Band = 6, "band";
        /// Bitwise or; logical for bool.
        Bor = 7, "bor";
        /// Bitwise exclusive or; logical for bool.
        Bxor = 8, "bxor";
    }
}

coded_enum! {
    /// Which of the two laws decides the bits.
    Order {
        /// The left-full dyadic tree over leaf numbers.
        Tree = 1, "tree";
        /// The correctly rounded result, whatever the grouping.
        Exact = 2, "exact";
    }
}

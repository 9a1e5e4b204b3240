//! Arguments of a collective as its caller gave them, and their values where they are of the usual kind.

use std::time::Duration;

use isobit_core::{Order, Rank, ReduceOp};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::arguments::seconds;

/// An argument as it was given, if it was: `None` is one.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a, 'py>(pub(crate) Option<Borrowed<'a, 'py, PyAny>>);

impl<'a, 'py> Given<'a, 'py> {
    pub(crate) fn is_there(self) -> bool {
        self.0.is_some()
    }

    /// What it is, where not giving it and giving `None` are the same.
    fn unless_none(self) -> Option<Borrowed<'a, 'py, PyAny>> {
        self.0.filter(|given| !given.is_none())
    }

    /// What its name stands for, `otherwise` where none was given.
    fn named<T>(self, of_name: impl Fn(&str) -> Option<T>, otherwise: T) -> Option<T> {
        match self.0 {
            Some(given) => of_name(given.cast::<PyString>().ok()?.to_str().ok()?),
            None => Some(otherwise),
        }
    }
}

/// The arguments of a call.
pub(crate) struct Arguments<'a, 'py> {
    pub(crate) tensor: Given<'a, 'py>,
    pub(crate) out: Given<'a, 'py>,
    pub(crate) op: Given<'a, 'py>,
    pub(crate) order: Given<'a, 'py>,
    pub(crate) root: Given<'a, 'py>,
    pub(crate) timeout: Given<'a, 'py>,
}

/// Arguments of the usual kind.
pub(crate) struct Usuals<'a, 'py> {
    pub(crate) tensor: Borrowed<'a, 'py, PyAny>,
    pub(crate) out: Option<Borrowed<'a, 'py, PyAny>>,
    pub(crate) op: ReduceOp,
    pub(crate) order: Order,
    pub(crate) root: Rank,
    pub(crate) timeout: Option<Duration>,
}

impl<'a, 'py> Arguments<'a, 'py> {
    /// Their values, if they are of the usual kind, and if all those not given that the method does not take.
    #[inline]
    pub(crate) fn usual(&self, unknown: &[Given<'_, '_>]) -> Option<Usuals<'a, 'py>> {
        if unknown.iter().any(|given| given.is_there()) {
            return None;
        }
        Some(Usuals {
            tensor: self.tensor.0?,
            out: self.out.unless_none(),
            op: self.op.named(ReduceOp::from_name, ReduceOp::Sum)?,
            order: self.order.named(Order::from_name, Order::Tree)?,
            root: self.root.0.map_or(Some(0), |root| root.extract().ok())?,
            timeout: self.timeout()?,
        })
    }

    pub(crate) fn timeout(&self) -> Option<Option<Duration>> {
        let seconds = |given: Borrowed<'_, '_, PyAny>| seconds("timeout", given.extract().ok()?).ok();
        self.timeout.unless_none().map_or(Some(None), |given| seconds(given).map(Some))
    }
}

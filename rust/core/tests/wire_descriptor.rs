//! Descriptors: two that differ say in what, in the caller's words.

use isobit_core::wire::{Collective, Descriptor};
use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp};

fn contract(leaves: u32) -> Option<Contract> {
    Contract::new(ContractSpec::new(ReduceOp::Sum, Order::Tree, leaves, Dtype::F32)).ok()
}

fn descriptor() -> Descriptor {
    Descriptor {
        collective: Collective::Reduce,
        contract: contract(4),
        dtype: Dtype::F32,
        root: Some(1),
        count: 10,
        shape: 5,
        layout: 6,
    }
}

fn check(change: impl FnOnce(&mut Descriptor), expected: (&str, &str, &str)) {
    let mut theirs = descriptor();
    change(&mut theirs);
    let found = descriptor().difference(&theirs).expect("they differ");
    assert_eq!((found.field, found.ours.as_str(), found.theirs.as_str()), expected);
}

#[test]
fn equal_descriptors_have_no_difference() {
    assert_eq!(descriptor().difference(&descriptor()), None);
}

#[test]
fn each_field_that_differs_is_named_with_both_values() {
    check(|d| d.collective = Collective::AllReduce, ("collective", "reduce", "all_reduce"));
    check(|d| d.contract = contract(8), ("number of leaves", "4", "8"));
    check(|d| d.dtype = Dtype::F16, ("dtype", "f32", "f16"));
    check(|d| d.root = None, ("root", "1", "none"));
    check(|d| d.count = 11, ("count", "10", "11"));
    check(|d| d.shape = 7, ("shape", "digest 0000000000000005", "digest 0000000000000007"));
    check(|d| d.layout = 7, ("layout", "digest 0000000000000006", "digest 0000000000000007"));
}

#[test]
fn the_collective_is_named_before_what_follows_from_it() {
    let broadcast = |d: &mut Descriptor| {
        *d = Descriptor { collective: Collective::Broadcast, contract: None, root: None, count: 3, ..*d };
    };
    check(broadcast, ("collective", "reduce", "broadcast"));
}

#[test]
fn every_collective_has_its_own_name_and_code() {
    for kind in Collective::ALL {
        assert_eq!(Collective::from_code(kind.code()), Some(*kind));
        assert_eq!(Collective::from_name(kind.name()), Some(*kind));
    }
    assert_eq!(Collective::from_code(0), None);
}

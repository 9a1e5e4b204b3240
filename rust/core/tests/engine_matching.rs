//! Judging arriving messages: the expected one passes, any other says in what it differs.

use isobit_core::engine::{Expectation, Mismatch, MismatchKind};
use isobit_core::wire::{Channel, Collective, Descriptor, Header};
use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp};

fn contract(leaves: u32) -> Option<Contract> {
    Contract::new(ContractSpec::new(ReduceOp::Sum, Order::Tree, leaves, Dtype::F32)).ok()
}

fn arriving() -> Header {
    Header {
        group: 10,
        incarnation: 11,
        epoch: 2,
        source: 3,
        destination: 1,
        channel: Channel::Collective,
        sequence: 20,
        message: 5,
        tag: 0,
        descriptor: Descriptor {
            collective: Collective::AllReduce,
            contract: contract(4),
            dtype: Dtype::F32,
            root: None,
            count: 100,
            shape: 1,
            layout: 2,
        },
        payload_bytes: 400,
        payload_checksum: 77,
    }
}

fn expected() -> Expectation {
    let header = arriving();
    Expectation {
        group: header.group,
        epoch: header.epoch,
        incarnation: header.incarnation,
        source: header.source,
        destination: header.destination,
        channel: header.channel,
        sequence: header.sequence,
        message: header.message,
        tag: header.tag,
        descriptor: header.descriptor,
        payload_bytes: header.payload_bytes,
    }
}

fn mismatch(change: impl FnOnce(&mut Header)) -> Mismatch {
    let mut header = arriving();
    change(&mut header);
    *expected().check(&header).expect_err("it is not the expected message")
}

#[test]
fn the_expected_message_passes() {
    assert_eq!(expected().check(&arriving()), Ok(()));
}

#[test]
fn each_field_that_differs_is_named() {
    use MismatchKind::{Contract as OfContract, Membership, Operation, Plan, Route, Sequence};
    type Change = fn(&mut Header);
    let cases: [(MismatchKind, &str, Change); 17] = [
        (Route, "group", |h| h.group += 1),
        (Route, "source", |h| h.source += 1),
        (Route, "destination", |h| h.destination += 1),
        (Route, "channel", |h| h.channel = Channel::PointToPoint),
        (Membership, "incarnation", |h| h.incarnation += 1),
        (Membership, "epoch", |h| h.epoch += 1),
        (Sequence, "sequence number", |h| h.sequence += 1),
        (Operation, "tag", |h| h.tag += 1),
        (Operation, "collective", |h| h.descriptor.collective = Collective::Barrier),
        (OfContract, "number of leaves", |h| h.descriptor.contract = contract(8)),
        (Operation, "contract", |h| h.descriptor.contract = None),
        (Operation, "dtype", |h| h.descriptor.dtype = Dtype::F16),
        (Operation, "count", |h| h.descriptor.count = 7),
        (Operation, "shape", |h| h.descriptor.shape = 7),
        (Operation, "layout", |h| h.descriptor.layout = 7),
        (Plan, "message number", |h| h.message += 1),
        (Plan, "message length", |h| h.payload_bytes -= 4),
    ];
    for (kind, field, change) in cases {
        let found = mismatch(change);
        assert_eq!((found.kind, found.field), (kind, field));
        assert_ne!(found.ours, found.theirs, "{field}");
    }
}

#[test]
fn a_mismatch_names_both_ranks_both_calls_and_what_to_do() {
    let text = mismatch(|header| header.descriptor.count = 7).to_string();
    for part in [
        "all_reduce(100 x f32",
        "all_reduce(7 x f32",
        "count is 100 on rank 1 and 7 on rank 3",
        "let every rank make the same call",
    ] {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
}

#[test]
fn of_two_sequence_numbers_the_lower_tells_who_made_a_call_too_many() {
    let older = mismatch(|header| header.sequence = 19).to_string();
    assert!(older.contains("rank 3 made a call that rank 1 did not"), "{older}");
    let newer = mismatch(|header| header.sequence = 21).to_string();
    assert!(newer.contains("rank 1 made a call that rank 3 did not"), "{newer}");
}

#[test]
fn the_cause_is_named_before_its_consequences() {
    let shorter = |header: &mut Header| {
        header.descriptor.count = 1;
        header.payload_bytes = 4;
    };
    assert_eq!(mismatch(shorter).field, "count");
    let later = mismatch(|header| {
        shorter(header);
        header.sequence += 1;
    });
    assert_eq!(later.kind, MismatchKind::Sequence);
}

//! The golden vectors that the Python reference wrote: both languages say the same law.
//!
//! `tests/vectors/README.md` says what each file holds; `wire_vectors.rs` reads the headers.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

use isobit_core::float::{convert, write_bits};
use isobit_core::law::{LeafMap, LeafSet, Node, contributions, cover, fold, reduce};
use isobit_core::schedule::Content;
use isobit_core::{Contract, ContractError, ContractSpec, Dtype, Order, ReduceOp};
use serde_json::Value;

/// Checks every vector of a file, and that there are some.
fn each(file: &str, mut check: impl FnMut(&str, &Value)) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let vectors: Vec<Value> = serde_json::from_str(&text).expect("a JSON list");
    assert!(!vectors.is_empty(), "{file} has vectors");
    vectors.iter().for_each(|vector| check(string(&vector["name"]), vector));
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is a string"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is a number"))
}

fn small(value: &Value) -> u32 {
    u32::try_from(number(value)).expect("a number of 32 bits")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is a list"))
}

fn digits(value: &Value) -> u64 {
    u64::from_str_radix(string(value), 16).expect("hexadecimal digits")
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = string(value);
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

fn dtype(value: &Value) -> Dtype {
    Dtype::from_name(string(value)).expect("a dtype")
}

fn spec(vector: &Value, leaves: u32) -> ContractSpec {
    ContractSpec {
        op: ReduceOp::from_name(string(&vector["op"])).expect("an operation"),
        order: Order::from_name(string(&vector["order"])).expect("an order"),
        leaves,
        dtype: dtype(&vector["dtype"]),
        accumulate: vector["accumulate"].as_str().and_then(Dtype::from_name),
        out_dtype: vector["out_dtype"].as_str().and_then(Dtype::from_name),
        divisor: vector["divisor"].as_u64(),
    }
}

fn contract(vector: &Value) -> Contract {
    Contract::new(spec(vector, small(&vector["leaves"]))).expect("a contract")
}

fn tensors(value: &Value) -> Vec<Vec<u8>> {
    list(value).iter().map(bytes).collect()
}

fn reduced(contract: &Contract, leaves: &[Vec<u8>]) -> Vec<u8> {
    reduce(contract, &leaves.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn leaf_set(runs: &Value) -> LeafSet {
    LeafSet::from_leaves(list(runs).iter().flat_map(|run| small(&run[0])..small(&run[1])))
}

/// The name of an error's variant.
fn kind(error: impl Debug) -> String {
    let text = format!("{error:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().expect("a name").to_owned()
}

#[test]
fn contracts_are_encoded_alike_and_refused_for_the_same_reason() {
    each("contracts.json", |name, vector| {
        let made: Result<Contract, ContractError> = Contract::new(spec(vector, small(&vector["leaves"])));
        match made {
            Ok(contract) => {
                assert_eq!(contract.encode(), *bytes(&vector["encoding"]), "{name}");
                assert_eq!(contract.digest(), digits(&vector["digest"]), "{name}");
                assert_eq!(Contract::decode(&contract.encode()), Some(contract), "{name}");
            }
            Err(error) => assert_eq!(kind(error), string(&vector["error"]), "{name}"),
        }
    });
}

#[test]
fn covers_are_the_same_nodes() {
    each("covers.json", |name, vector| {
        let nodes = cover(small(&vector["leaves"]), &leaf_set(&vector["runs"]));
        let expected: Vec<(u32, u32)> =
            list(&vector["nodes"]).iter().map(|node| (small(&node[0]), small(&node[1]))).collect();
        let found: Vec<(u32, u32)> = nodes.into_iter().map(|node| (node.first(), node.end())).collect();
        assert_eq!(found, expected, "{name}");
    });
}

#[test]
fn leaf_maps_have_the_same_digest_or_the_same_error() {
    each("leaf_maps.json", |name, vector| {
        let leaves = small(&vector["leaves"]);
        let ranks: Vec<LeafSet> = list(&vector["ranks"]).iter().map(leaf_set).collect();
        let world_size = u32::try_from(ranks.len()).expect("a small world");
        match LeafMap::new(leaves, ranks) {
            Ok(map) => {
                assert_eq!(map.digest(), digits(&vector["digest"]), "{name}");
                let even = vector["even"] == Value::Bool(true);
                assert_eq!(map == LeafMap::even(leaves, world_size), even, "{name}");
            }
            Err(error) => assert_eq!(kind(error), string(&vector["error"]), "{name}"),
        }
    });
}

#[test]
fn conversions_round_alike() {
    each("conversions.json", |name, vector| {
        let (from, to) = (dtype(&vector["from"]), dtype(&vector["to"]));
        assert_eq!(convert(from, digits(&vector["input"]), to), digits(&vector["output"]), "{name}");
    });
}

#[test]
fn whole_tables_of_conversions_have_the_same_digest() {
    each("tables.json", |name, vector| {
        let (from, to) = (dtype(&vector["from"]), dtype(&vector["to"]));
        let (step, count) = (number(&vector["step"]), number(&vector["count"]));
        let mut outputs = vec![0; count as usize * to.size()];
        for (index, output) in (0..count).zip(outputs.chunks_exact_mut(to.size())) {
            write_bits(convert(from, index * step, to), output);
        }
        assert_eq!(isobit_core::wire::checksum(&outputs), digits(&vector["digest"]), "{name}");
    });
}

#[test]
fn every_reduction_has_the_same_bits() {
    each("reductions.json", |name, vector| {
        let result = reduced(&contract(&vector["contract"]), &tensors(&vector["leaves"]));
        assert_eq!(result, bytes(&vector["result"]), "{name}");
    });
}

#[test]
fn the_grid_of_contracts_and_numbers_of_leaves_has_the_same_bits() {
    let mut pools = BTreeMap::new();
    each("pools.json", |dtype, vector| {
        pools.insert(dtype.to_owned(), tensors(&vector["leaves"]));
    });
    each("grid.json", |name, vector| {
        let leaves = &pools[string(&vector["dtype"])];
        for (number_of_leaves, result) in vector["results"].as_object().expect("results by number of leaves")
        {
            let number_of_leaves: u32 = number_of_leaves.parse().expect("a number of leaves");
            let contract = Contract::new(spec(vector, number_of_leaves)).expect("a contract");
            let found = reduced(&contract, &leaves[..number_of_leaves as usize]);
            assert_eq!(found, bytes(result), "{name}, {number_of_leaves} leaves");
        }
    });
}

/// What a contribution is, in the words of the vectors.
fn described(content: Content) -> String {
    match content {
        Content::Leaf(leaf) => format!("leaf {leaf}"),
        Content::Node(node) => format!("node {node}"),
        Content::Wide(count) => format!("wide {count}"),
        other => panic!("{other:?} is no contribution"),
    }
}

#[test]
fn ranks_contribute_the_same_bytes_and_compute_the_same_result() {
    each("contributions.json", |name, vector| {
        let contract = contract(&vector["contract"]);
        let leaves = tensors(&vector["leaves"]);
        let ranks: Vec<LeafSet> = list(&vector["ranks"]).iter().map(leaf_set).collect();
        let map = LeafMap::new(contract.leaves(), ranks).expect("a partition");
        let mut parts: Vec<(Content, Vec<u8>)> = Vec::new();
        for (rank, expected) in (0..).zip(list(&vector["parts"])) {
            let contents = contributions(&contract, &map, rank);
            let names: Vec<String> = contents.iter().copied().map(described).collect();
            let expected_names: Vec<&str> =
                list(expected).iter().map(|part| string(&part["content"])).collect();
            assert_eq!(names, expected_names, "{name}, rank {rank}");
            for (content, expected) in contents.into_iter().zip(list(expected)) {
                let below: Vec<(Content, &[u8])> = (0..contract.leaves())
                    .filter(|leaf| match content {
                        Content::Node(node) => node.contains(Node::leaf(*leaf)),
                        _ => map.of(rank).contains(*leaf),
                    })
                    .map(|leaf| (Content::Leaf(leaf), &leaves[leaf as usize][..]))
                    .collect();
                let found = match content {
                    Content::Leaf(leaf) => leaves[leaf as usize].clone(),
                    _ => fold(&contract, &below, content),
                };
                assert_eq!(found, bytes(&expected["bytes"]), "{name}, rank {rank}, {}", described(content));
                parts.push((content, found));
            }
        }
        parts.sort_by_key(|(content, _)| match content {
            Content::Node(node) => node.first(),
            Content::Leaf(leaf) => *leaf,
            _ => 0,
        });
        let inputs: Vec<(Content, &[u8])> =
            parts.iter().map(|(content, part)| (*content, &part[..])).collect();
        let result = bytes(&vector["result"]);
        assert_eq!(fold(&contract, &inputs, Content::Result), result, "{name}");
        assert_eq!(reduced(&contract, &leaves), result, "{name}");
    });
}

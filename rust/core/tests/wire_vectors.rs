//! The golden headers, which the Python twin wrote: the same bytes here.

use isobit_core::Dtype;
use isobit_core::contract::{CONTRACT_BYTES, Contract};
use isobit_core::wire::{Channel, Collective, Descriptor, HEADER_BYTES, Header, HeaderError, checksum};
use serde_json::Value;

fn hex(value: &Value) -> Vec<u8> {
    let digits = value.as_str().expect("hex digits");
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn digest(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().expect("a digest"), 16).expect("hex digits")
}

fn long(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

fn word(value: &Value) -> u32 {
    u32::try_from(long(value)).expect("a word")
}

fn contract(value: &Value) -> Option<Contract> {
    let bytes: [u8; CONTRACT_BYTES] = (!value.is_null()).then(|| hex(value).try_into().unwrap())?;
    Some(Contract::decode(&bytes).expect("a contract"))
}

fn header(case: &Value) -> Header {
    let channel = u8::try_from(long(&case["channel"])).unwrap();
    Header {
        group: long(&case["group"]),
        incarnation: long(&case["incarnation"]),
        epoch: word(&case["epoch"]),
        source: word(&case["source"]),
        destination: word(&case["destination"]),
        channel: Channel::from_code(channel).expect("a channel"),
        sequence: long(&case["sequence"]),
        message: word(&case["message"]),
        tag: long(&case["tag"]),
        descriptor: Descriptor {
            collective: Collective::from_name(case["collective"].as_str().unwrap()).expect("a collective"),
            contract: contract(&case["contract"]),
            dtype: Dtype::from_name(case["dtype"].as_str().unwrap()).expect("a dtype"),
            root: case["root"].as_u64().map(|root| u32::try_from(root).unwrap()),
            count: long(&case["count"]),
            shape: digest(&case["shape_digest"]),
            layout: digest(&case["layout"]),
        },
        payload_bytes: u32::try_from(hex(&case["payload"]).len()).unwrap(),
        payload_checksum: checksum(&hex(&case["payload"])),
    }
}

fn cases() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/headers.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn bytes(case: &Value) -> [u8; HEADER_BYTES] {
    hex(&case["bytes"]).try_into().expect("the length of a header")
}

#[test]
fn the_golden_bytes_that_are_no_headers_are_refused_for_the_same_reason() {
    let cases = cases();
    let bad: Vec<&Value> = cases.iter().filter(|case| !case["error"].is_null()).collect();
    assert!(bad.len() >= 8);
    for case in bad {
        let reason = match Header::decode(&bytes(case)).expect_err("it is no header") {
            HeaderError::Magic { .. } => "Magic",
            HeaderError::Version { .. } => "Version",
            HeaderError::Checksum { .. } => "Checksum",
            HeaderError::Field { .. } => "Field",
        };
        assert_eq!(case["error"], reason, "{}", case["name"]);
    }
}

#[test]
fn the_golden_headers_are_written_and_read_byte_for_byte() {
    let cases = cases();
    let good: Vec<&Value> = cases.iter().filter(|case| case["error"].is_null()).collect();
    assert!(good.len() >= Collective::ALL.len(), "one header of each collective at least");
    for case in good {
        let (name, header, bytes) = (&case["name"], header(case), bytes(case));
        assert_eq!(header.payload_checksum, digest(&case["payload_checksum"]), "{name}");
        assert_eq!(header.encode(), bytes, "{name}");
        assert_eq!(Header::decode(&bytes), Ok(header), "{name}");
        let dimensions: Vec<u8> =
            case["shape"].as_array().unwrap().iter().flat_map(|n| long(n).to_le_bytes()).collect();
        assert_eq!(header.descriptor.shape, checksum(&dimensions), "{name}");
    }
}

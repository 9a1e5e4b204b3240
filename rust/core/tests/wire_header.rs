//! The header on the wire: what is written is read back, and nothing else is believed.

use isobit_core::wire::{
    Channel, Collective, Descriptor, HEADER_BYTES, Header, HeaderError, WIRE_VERSION, checksum,
};
use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp};
use proptest::prelude::*;

fn a_header() -> Header {
    let contract = Contract::new(ContractSpec::new(ReduceOp::Mean, Order::Tree, 12, Dtype::Bf16)).unwrap();
    Header {
        group: 0x0102_0304_0506_0708,
        incarnation: 0x1112_1314_1516_1718,
        epoch: 0x2122_2324,
        source: 0x3132_3334,
        destination: 0x4142_4344,
        channel: Channel::PointToPoint,
        sequence: 0x5152_5354_5556_5758,
        message: 0x6162_6364,
        tag: 0x7172_7374_7576_7778,
        descriptor: Descriptor {
            collective: Collective::Reduce,
            contract: Some(contract),
            dtype: Dtype::Bf16,
            root: Some(3),
            count: 0x8182_8384_8586_8788,
            shape: 0x9192_9394_9596_9798,
            layout: 0xa1a2_a3a4_a5a6_a7a8,
        },
        payload_bytes: 0xb1b2_b3b4,
        payload_checksum: 0xc1c2_c3c4_c5c6_c7c8,
    }
}

/// Any contract, asked for in any way that is no error.
fn contracts() -> impl Strategy<Value = Contract> {
    let specs = (0..8usize, 0..2usize, 1..100u32, 0..15usize, 0..3usize, 0..7usize, 0..1000u64);
    specs.prop_filter_map("no such contract", |(op, order, leaves, dtype, acc, out, divisor)| {
        let mut spec = ContractSpec::new(ReduceOp::ALL[op], Order::ALL[order], leaves, Dtype::ALL[dtype]);
        spec.accumulate = [None, Some(Dtype::F32), Some(Dtype::F64)][acc];
        spec.out_dtype = Dtype::FLOATS.get(out).copied();
        spec.divisor = (divisor > 0 && spec.op == ReduceOp::Mean).then_some(divisor);
        Contract::new(spec).ok()
    })
}

fn headers() -> impl Strategy<Value = Header> {
    let route = (any::<[u64; 3]>(), any::<[u32; 5]>(), any::<bool>());
    let what = (0..10usize, proptest::option::of(contracts()), 0..15usize, 0..u32::MAX, any::<bool>());
    (route, what, any::<[u64; 5]>()).prop_map(
        |((long, word, p2p), (kind, contract, dtype, root, rooted), rest)| Header {
            group: long[0],
            incarnation: long[1],
            epoch: word[0],
            source: word[1],
            destination: word[2],
            channel: if p2p { Channel::PointToPoint } else { Channel::Collective },
            sequence: long[2],
            message: word[3],
            tag: rest[0],
            descriptor: Descriptor {
                collective: Collective::ALL[kind],
                contract,
                dtype: Dtype::ALL[dtype],
                root: rooted.then_some(root),
                count: rest[1],
                shape: rest[2],
                layout: rest[3],
            },
            payload_bytes: word[4],
            payload_checksum: rest[4],
        },
    )
}

/// `bytes` with the checksum that they should have.
fn sealed(mut bytes: [u8; HEADER_BYTES]) -> [u8; HEADER_BYTES] {
    let seal = checksum(&bytes[..120]);
    bytes[120..].copy_from_slice(&seal.to_le_bytes());
    bytes
}

#[test]
fn every_field_stands_where_the_table_says() {
    let bytes = a_header().encode();
    let field = |start: usize, width: usize| {
        let mut le = [0; 8];
        le[..width].copy_from_slice(&bytes[start..start + width]);
        u64::from_le_bytes(le)
    };
    assert_eq!(&bytes[..4], b"ISOB");
    assert_eq!(bytes[4..8], [WIRE_VERSION, Collective::Reduce.code(), 1, Dtype::Bf16.code()]);
    assert_eq!(field(8, 8), 0x0102_0304_0506_0708);
    assert_eq!(field(16, 8), 0x1112_1314_1516_1718);
    assert_eq!(field(24, 4), 0x2122_2324);
    assert_eq!(field(28, 4), 0x3132_3334);
    assert_eq!(field(32, 4), 0x4142_4344);
    assert_eq!(field(36, 4), 3);
    assert_eq!(field(40, 8), 0x5152_5354_5556_5758);
    assert_eq!(field(48, 4), 0x6162_6364);
    assert_eq!(field(52, 4), 0xb1b2_b3b4);
    assert_eq!(field(56, 8), 0xc1c2_c3c4_c5c6_c7c8);
    assert_eq!(bytes[64..88], a_header().descriptor.contract.unwrap().encode());
    assert_eq!(field(88, 8), 0x8182_8384_8586_8788);
    assert_eq!(field(96, 8), 0x9192_9394_9596_9798);
    assert_eq!(field(104, 8), 0xa1a2_a3a4_a5a6_a7a8);
    assert_eq!(field(112, 8), 0x7172_7374_7576_7778);
    assert_eq!(field(120, 8), checksum(&bytes[..120]));
}

#[test]
fn no_contract_is_zeros_and_no_root_is_ones() {
    let mut header = a_header();
    header.descriptor.contract = None;
    header.descriptor.root = None;
    let bytes = header.encode();
    assert_eq!(bytes[64..88], [0; 24]);
    assert_eq!(bytes[36..40], [0xff; 4]);
    assert_eq!(Header::decode(&bytes), Ok(header));
}

#[test]
fn what_is_no_header_of_this_version_is_called_that() {
    let mut bytes = a_header().encode();
    bytes[..4].copy_from_slice(b"HTTP");
    assert_eq!(Header::decode(&bytes), Err(HeaderError::Magic { found: *b"HTTP" }));
    let mut bytes = a_header().encode();
    bytes[4] = 9;
    assert_eq!(Header::decode(&bytes), Err(HeaderError::Version { found: 9 }));
}

#[test]
fn an_intact_header_with_a_meaningless_field_names_it() {
    for (offset, value, field) in
        [(5, 0, "collective"), (5, 11, "collective"), (6, 2, "channel"), (7, 0, "dtype"), (7, 33, "dtype")]
    {
        let mut bytes = a_header().encode();
        bytes[offset] = value;
        let expected = HeaderError::Field { field, value: u64::from(value) };
        assert_eq!(Header::decode(&sealed(bytes)), Err(expected));
    }
    let mut bytes = a_header().encode();
    bytes[70] = 1; // one of the contract's zero bytes
    assert!(matches!(Header::decode(&sealed(bytes)), Err(HeaderError::Field { field: "contract", .. })));
}

#[test]
fn a_contract_of_a_foreign_law_is_kept_so_that_it_can_be_named() {
    let mut bytes = a_header().encode();
    bytes[69] = 200;
    let theirs = Header::decode(&sealed(bytes)).unwrap().descriptor;
    let difference = a_header().descriptor.difference(&theirs).unwrap();
    assert_eq!((difference.field, difference.theirs.as_str()), ("law version", "200"));
}

#[test]
fn any_flip_of_one_bit_is_an_error() {
    let bytes = a_header().encode();
    for bit in 0..8 * HEADER_BYTES {
        let mut damaged = bytes;
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Header::decode(&damaged).is_err(), "bit {bit}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(header in headers()) {
        prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn damage_of_any_header_is_an_error(
        header in headers(), bits in prop::collection::btree_set(0..8 * HEADER_BYTES, 1..9),
    ) {
        let mut damaged = header.encode();
        for bit in bits {
            damaged[bit / 8] ^= 1 << (bit % 8);
        }
        prop_assert!(Header::decode(&damaged).is_err());
    }

    #[test]
    fn random_bytes_are_an_error_and_never_a_panic(
        bytes in prop::collection::vec(any::<u8>(), HEADER_BYTES), like in any::<bool>(),
    ) {
        let mut bytes: [u8; HEADER_BYTES] = bytes.try_into().unwrap();
        if like {
            bytes[..5].copy_from_slice(b"ISOB\x01");
        }
        prop_assert!(Header::decode(&bytes).is_err());
    }

    /// Even a peer that seals its nonsense can't make two encodings of one header.
    #[test]
    fn sealed_nonsense_is_an_error_or_reads_back_the_same(
        header in headers(), at in 5..120usize, with in prop::collection::vec(any::<u8>(), 1..8),
    ) {
        let mut bytes = header.encode();
        for (byte, with) in bytes[at..120].iter_mut().zip(with) {
            *byte = with;
        }
        let bytes = sealed(bytes);
        if let Ok(read) = Header::decode(&bytes) {
            prop_assert_eq!(read.encode(), bytes);
        }
    }
}

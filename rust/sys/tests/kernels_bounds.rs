//! Kernels touch what they are given and nothing beside it: operands that end where their allocation ends,
//! at every alignment and of odd lengths. `make sanitize` sees every byte that is touched beside them;
//! without it this shows that no bit depends on where the operands lie.

use isobit_core::schedule::Content;
use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp};
use isobit_sys::{Input, Kernels, Memory, ReadSpan, WriteSpan};

const LENS: [usize; 17] = [0, 1, 2, 3, 5, 7, 9, 15, 17, 31, 33, 63, 65, 127, 129, 255, 513];
const PLACES: [usize; 5] = [0, 1, 3, 13, 62];

/// An allocation of exactly `place + len` bytes; the last `len` are the operand.
struct Operand {
    bytes: Box<[u8]>,
    place: usize,
}

impl Operand {
    fn new(place: usize, content: &[u8]) -> Operand {
        let mut bytes = vec![0xa5; place + content.len()].into_boxed_slice();
        bytes[place..].copy_from_slice(content);
        Operand { bytes, place }
    }

    fn span(&self) -> ReadSpan<'_> {
        self.bytes[self.place..].into()
    }

    fn span_mut(&mut self) -> WriteSpan<'_> {
        (&mut self.bytes[self.place..]).into()
    }

    fn content(&self) -> &[u8] {
        assert!(self.bytes[..self.place].iter().all(|byte| *byte == 0xa5), "wrote before the operand");
        &self.bytes[self.place..]
    }
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

/// What `run` writes to an operand of `len` bytes, which must not depend on where anything lies.
fn same_wherever(what: &str, len: usize, run: impl Fn(&'static Kernels, usize, &mut Operand)) {
    let mut expected: Option<Vec<u8>> = None;
    for kernels in Kernels::available() {
        for place in PLACES {
            let mut out = Operand::new(place + 1, &vec![0; len]);
            run(kernels, place, &mut out);
            let expected = expected.get_or_insert_with(|| out.content().to_vec());
            assert!(out.content() == &expected[..], "{what}: {} at {place}", kernels.name());
        }
    }
}

#[test]
fn reductions_touch_their_operands_only() {
    for dtype in Dtype::ALL {
        for &op in ReduceOp::ALL {
            for &order in Order::ALL {
                let Ok(contract) = Contract::new(ContractSpec::new(op, order, 3, dtype)) else { continue };
                for len in LENS {
                    let leaves: Vec<Vec<u8>> = (1..4).map(|seed| noise(len * dtype.size(), seed)).collect();
                    same_wherever(
                        &format!("{contract}, {len} elements"),
                        len * contract.dtype_out().size(),
                        |kernels, place, out| {
                            let operands: Vec<Operand> = leaves
                                .iter()
                                .zip(place..)
                                .map(|(leaf, place)| Operand::new(place, leaf))
                                .collect();
                            let inputs: Vec<Input> = (0..)
                                .zip(&operands)
                                .map(|(leaf, operand)| Input {
                                    content: Content::Leaf(leaf),
                                    span: operand.span(),
                                })
                                .collect();
                            kernels.reduce(&contract, &inputs, Content::Result, out.span_mut()).unwrap();
                        },
                    );
                }
            }
        }
    }
}

#[test]
fn conversions_touch_their_operands_only() {
    for from in Dtype::FLOATS {
        for to in Dtype::FLOATS {
            for len in LENS {
                let bytes = noise(len * from.size(), 9);
                same_wherever(
                    &format!("{from} to {to}, {len} elements"),
                    len * to.size(),
                    |kernels, place, out| {
                        kernels.convert(from, to, Operand::new(place, &bytes).span(), out.span_mut());
                    },
                );
            }
        }
    }
}

#[test]
fn copies_and_checksums_touch_their_operands_only() {
    for len in (0..300).chain([511, 1023, 1025, 2047, 4095, 4097]) {
        let bytes = noise(len, 5);
        same_wherever(&format!("{len} bytes"), len, |kernels, place, out| {
            let source = Operand::new(place, &bytes);
            let sum = kernels.checksum(source.span());
            kernels.copy(source.span(), out.span_mut());
            assert_eq!(kernels.copy_checksum(source.span(), out.span_mut()), sum);
            assert_eq!(kernels.checksum(out.span()), sum);
        });
    }
}

#[test]
fn staging_memory_and_slices_of_spans_end_where_they_say() {
    for len in 0..200 {
        let memory = Memory::zeroed(len).unwrap();
        let bytes = noise(len, 3);
        for kernels in Kernels::available() {
            kernels.copy(bytes.as_slice().into(), memory.span());
            assert_eq!(memory.span().to_vec(), bytes);
            for start in [0, len / 3, len] {
                let slice = memory.span().slice(start, len - start);
                assert_eq!(kernels.checksum(slice.into()), kernels.checksum(bytes[start..].into()));
            }
        }
    }
}

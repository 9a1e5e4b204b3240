//! What no reduction can be made of is an error that says why, before anything is read or written.

use isobit_core::law::exact;
use isobit_core::schedule::Content;
use isobit_core::{Contract, ContractSpec, Dtype, Order, ReduceOp};
use isobit_sys::{Input, KernelError, Kernels, WriteSpan};

fn sum_of_two() -> Contract {
    Contract::new(ContractSpec::new(ReduceOp::Sum, Order::Tree, 2, Dtype::F32)).unwrap()
}

#[test]
fn inputs_that_do_not_tile_are_an_error() {
    let bytes = [0u8; 8];
    let input = |leaf| Input { content: Content::Leaf(leaf), span: bytes.as_slice().into() };
    for order in [Order::Tree, Order::Exact] {
        let contract = Contract::new(ContractSpec::new(ReduceOp::Sum, order, 2, Dtype::F32)).unwrap();
        for inputs in [vec![input(0)], vec![], vec![input(0), input(1), input(1)], vec![input(0), input(7)]] {
            let mut out = [0u8; 8];
            let error =
                Kernels::best().reduce(&contract, &inputs, Content::Result, out.as_mut_slice().into());
            assert!(matches!(error, Err(KernelError::DoNotTile { .. })), "{inputs:?}: {error:?}");
        }
    }
}

#[test]
fn spans_of_the_wrong_length_are_an_error() {
    let (a, b) = ([0u8; 8], [0u8; 12]);
    let inputs = [
        Input { content: Content::Leaf(0), span: a.as_slice().into() },
        Input { content: Content::Leaf(1), span: b.as_slice().into() },
    ];
    let mut out = [0u8; 8];
    let error = Kernels::best().reduce(&sum_of_two(), &inputs, Content::Result, out.as_mut_slice().into());
    assert_eq!(error, Err(KernelError::Length { input: 1, expected: 8, found: 12, out: 8 }));
    let mut out = [0u8; 7];
    let error = Kernels::best().reduce(&sum_of_two(), &inputs, Content::Result, out.as_mut_slice().into());
    assert_eq!(error, Err(KernelError::Ragged { out: 7, element: 4 }));
}

#[test]
fn an_output_that_overlaps_an_input_by_halves_is_an_error() {
    let mut memory = [0u8; 12];
    let other = [0u8; 8];
    let memory = WriteSpan::from(memory.as_mut_slice());
    let inputs = [
        Input { content: Content::Leaf(0), span: other.as_slice().into() },
        Input { content: Content::Leaf(1), span: memory.slice(0, 8).into() },
    ];
    let error = Kernels::best().reduce(&sum_of_two(), &inputs, Content::Result, memory.slice(4, 8));
    assert_eq!(error, Err(KernelError::Overlap { input: 1 }));
}

#[test]
fn wide_sums_have_the_laws_size() {
    assert_eq!(exact::wide_bytes(Dtype::F32), 48);
    assert_eq!(exact::wide_bytes(Dtype::F64), 280);
}

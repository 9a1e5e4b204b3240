"""Real torch tensors, where `test_tensors.py` has stand-ins. `make test-torch` runs this file where torch is."""

from __future__ import annotations

import isobit
import pytest
from ranks import Threads, results

torch = pytest.importorskip("torch", reason="this environment has no torch: make test-torch")

DTYPES = ("float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8")


def sum_of(comm: isobit.Communicator, dtype: str, background: bool) -> bool:
    """Whether 0, 1, 2 and so on, times a rank's number from 1, come to three times themselves on two ranks."""
    values = torch.arange(12, dtype=getattr(torch, dtype))
    given = values * (comm.rank + 1)
    result = comm.all_reduce(given, async_op=background)
    result = result.wait() if background else result
    return result is given and bool((given == values * 3).all())


@pytest.fixture(scope="module")
def pair() -> Threads:
    return Threads(2)


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tensor_of_any_dtype_is_reduced_in_place_and_returned(pair: Threads, dtype: str, background: bool) -> None:
    assert results(pair, sum_of, dtype, background) == [True, True]


def strided(comm: isobit.Communicator) -> list[list[float]]:
    whole = torch.zeros(3, 4)
    part = whole.t()[1:, ::2]
    part += 1
    comm.all_reduce(part)
    found: list[list[float]] = whole.tolist()
    return found


def test_a_transposed_slice_is_reduced_where_it_lies(pair: Threads) -> None:
    assert results(pair, strided) == [[[0, 2, 2, 2], [0, 0, 0, 0], [0, 2, 2, 2]]] * 2


def gathered(comm: isobit.Communicator) -> list[float]:
    out = torch.empty(2, dtype=torch.bfloat16)
    assert comm.all_gather(torch.full((1,), comm.rank + 0.5, dtype=torch.bfloat16), out) is out
    found: list[float] = out.tolist()
    return found


def test_a_result_is_written_to_the_tensor_given_for_it(pair: Threads) -> None:
    assert results(pair, gathered) == [[0.5, 1.5]] * 2


def test_autograd_refuses_a_saved_value_that_was_written_to() -> None:
    x = torch.ones(3, requires_grad=True)
    y = x.exp()
    with torch.no_grad():
        isobit.init().all_reduce(y)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_parameter_is_written_to_only_without_gradients() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    with pytest.raises((TypeError, ValueError), match=r"no_grad|requires"):
        isobit.init().all_reduce(parameter)
    with torch.no_grad():
        isobit.init().broadcast(parameter)

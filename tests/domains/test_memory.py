"""Recycled memory: released storage serves later blocks, and nothing that is in use."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.domains.windows import whole, windows
from zonocuda.domains import Dense, Symbols, Zonotope, memory, windowed
from zonocuda.domains.blocks import add_blocks
from zonocuda.domains.geometry import Convolution

LIKE = torch.empty(0, dtype=torch.float64)


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def test_what_is_released_serves_the_next_block_of_its_size() -> None:
    with memory.recycled() as pool:
        first = memory.empty((5, 20), LIKE)
        address = storage(first)
        memory.release(first)
        assert pool.nbytes == 800
        again = memory.empty((10, 10), LIKE)
        assert storage(again) == address
        assert pool.nbytes == 0
        assert again.shape == (10, 10)
        assert again.is_contiguous()


def test_nothing_is_handed_out_twice() -> None:
    with memory.recycled():
        memory.release(memory.empty((100,), LIKE))
        taken = [memory.empty((100,), LIKE) for _ in range(3)]
        assert len({storage(t) for t in taken}) == 3


def test_the_smallest_buffer_that_fits_is_taken_and_none_twice_as_large() -> None:
    with memory.recycled() as pool:
        buffers = [torch.empty(n, dtype=torch.float64) for n in (400, 150, 100, 120, 99)]
        for buffer in buffers:
            memory.release(buffer)
        assert storage(memory.empty((110,), LIKE)) == storage(buffers[3])
        assert storage(memory.empty((110,), LIKE)) == storage(buffers[1])
        fresh = memory.empty((110,), LIKE)
        assert storage(fresh) not in {storage(buffer) for buffer in buffers}
        assert pool.nbytes == 8 * (400 + 100 + 99)


def test_a_view_gives_its_whole_storage_back() -> None:
    with memory.recycled() as pool:
        memory.release(torch.empty(10, 20, dtype=torch.float64)[3:5])
        assert pool.nbytes == 1600
        assert memory.empty((200,), LIKE).shape == (200,)
        assert pool.nbytes == 0


def test_storage_serves_its_own_dtype_only() -> None:
    with memory.recycled() as pool:
        memory.release(torch.empty(100, dtype=torch.float32))
        assert memory.empty((50,), LIKE).dtype == torch.float64
        assert pool.nbytes == 400
        assert memory.empty((100,), LIKE.float()).dtype == torch.float32
        assert pool.nbytes == 0


def test_empty_blocks_are_taken_and_given() -> None:
    with memory.recycled() as pool:
        for shape in ((0,), (2, 0, 5), (0, 3)):
            block = memory.empty(shape, LIKE)
            assert block.shape == shape
            memory.release(block)
        assert pool.nbytes == 0


def test_outside_a_pool_memory_is_fresh_and_releasing_it_does_nothing() -> None:
    block = torch.ones(100, dtype=torch.float64)
    memory.release(block)
    assert storage(memory.empty((100,), LIKE)) != storage(block)
    assert bool((block == 1).all())


def test_the_end_of_a_pool_frees_what_is_free_and_leaves_what_is_in_use() -> None:
    with memory.recycled() as pool:
        kept, given = torch.ones(100, dtype=torch.float64), torch.ones(100, dtype=torch.float64)
        memory.release(given)
    assert pool.nbytes == 0
    assert given.untyped_storage().nbytes() == 0
    assert bool((kept == 1).all())


def test_a_pool_ends_with_its_errors_too_and_hands_over_to_the_one_around_it() -> None:
    with memory.recycled() as outer:
        with pytest.raises(AttributeError), memory.recycled():
            memory.release(None)  # type: ignore[arg-type]
        memory.release(torch.empty(50, dtype=torch.float64))
        assert outer.nbytes == 400
    memory.release(torch.empty(100, dtype=torch.float64))
    assert outer.nbytes == 0


def test_chunks_have_at_least_one_row_and_follow_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CHUNK_BYTES", {"cpu": 1000, "cuda": 5000})
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [memory.chunk_length(n, cpu) for n in (0, 1, 100, 999, 1001, 10**9)] == [1000, 1000, 10, 1, 1, 1]
    assert memory.chunk_length(100, cuda) == 50
    assert memory.chunk_length(100, torch.device("meta")) == 50


@pytest.mark.parametrize("chunk", [1, 500, 2**30])
def test_a_dense_block_goes_through_a_map_in_chunks(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setitem(memory.CHUNK_BYTES, "cpu", chunk)
    block, weight = Dense(Symbols(7), whole(2, 7, 5)), whole(3, 5)
    expected = block.generators @ weight.T
    with torch.no_grad(), memory.recycled():
        assert torch.equal(block.map_rows(lambda x: x @ weight.T).generators, expected)
    assert torch.equal(block.map_rows(lambda x: x @ weight.T).generators, expected)


def test_a_consumed_zonotope_gives_its_memory_up_block_after_block() -> None:
    z = Zonotope.from_generators(whole(1, 30), whole(1, 20, 30))
    (block,) = z.blocks
    address, weight = storage(block.tensors[0]), whole(30, 30)
    expected = z.linear(weight).linear(weight)
    with torch.no_grad(), memory.recycled() as pool:
        once = z.linear(weight, consume=True)
        assert pool.nbytes == 20 * 30 * 8
        twice = once.linear(weight, consume=True)
        assert storage(twice.blocks[0].tensors[0]) == address
    assert torch.equal(twice.blocks[0].tensors[0], expected.blocks[0].tensors[0])


def test_a_map_that_consumes_nothing_keeps_its_input() -> None:
    z = Zonotope.from_generators(whole(1, 4, 6, 6), whole(1, 20, 4, 6, 6))
    kept = z.blocks[0].tensors[0].clone()
    with torch.no_grad(), memory.recycled() as pool:
        for image in (z.conv2d(whole(2, 4, 3, 3)), z.avg_pool2d(2), z.reduce((1, 2)), z.permute(2, 0, 1), z + z, -z):
            memory.release(image.blocks[0].tensors[0])
        assert pool.nbytes > 0
    assert torch.equal(z.blocks[0].tensors[0], kept)


@pytest.mark.parametrize("window", [(1, 1), (2, 3)])
def test_a_sum_in_place_gives_up_what_it_does_not_lie_in(window: tuple[int, int]) -> None:
    a = windows(window=window)
    b = windowed.replace(a, patches=whole(*a.patches.shape) * (a.patches != 0))
    for one, two in (
        (a, b),
        (Dense(a.symbols, a.dense((3, 5, 6))), b),
        (a, Dense(a.symbols, b.dense((3, 5, 6)))),
        (Dense(a.symbols, a.dense((3, 5, 6))), Dense(a.symbols, b.dense((3, 5, 6)))),
    ):
        one, two = (windowed.replace(x, **{k: v.clone() for k, v in _held(x).items()}) for x in (one, two))
        expected = one.dense((3, 5, 6)) + two.dense((3, 5, 6))
        with torch.no_grad(), memory.recycled() as pool:
            total = add_blocks(one, two, (3, 5, 6), in_place=True)
            free = {storage(buffer) for buffer in pool.free}
            assert len(free) == len(pool.free)  # nothing is given up twice
            assert storage(total.tensors[0]) not in free
            held = {storage(x.tensors[0]) for x in (one, two)}
            assert held - {storage(total.tensors[0])} <= free
            for buffer in pool.free:
                buffer.fill_(7.0)
            assert torch.equal(total.dense((3, 5, 6)), expected)


def _held(block: object) -> dict[str, Tensor]:
    return {name: getattr(block, name) for name in ("patches", "generators") if hasattr(block, name)}


def test_windows_that_become_dense_are_written_into_recycled_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windowed, "DENSE_SHARE", -1.0)
    block = windows()
    expected = block.dense((3, 5, 6))
    with torch.no_grad(), memory.recycled() as pool:
        spare = torch.full_like(expected, torch.nan)
        address = storage(spare)
        pool.give(spare)
        image = block.convolve(torch.eye(3, dtype=torch.float64).reshape(3, 3, 1, 1), Convolution((1, 1)))
        assert isinstance(image, Dense)
        assert storage(image.generators) == address
        assert not pool.free
        assert torch.equal(image.generators, expected)

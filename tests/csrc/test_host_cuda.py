"""host_cuda.h itself: it runs correct kernels, and catches each planted mistake."""

from __future__ import annotations

import re

import pytest
import torch

from tests.csrc.host import HostFaultError, HostKernels, Launch, Out, Tail

F = torch.float32


def numbers(count: int) -> torch.Tensor:
    """1, 2, 3, ...: small integers, so that sums are exact."""
    return torch.arange(1, count + 1, dtype=F)


def test_shuffles_and_atomics_sum_a_warp(host: HostKernels) -> None:
    x = numbers(3 * 64)
    total = Out(torch.zeros(1))
    sums, total_sum = host.run("warp_sums", Launch((3, 1), (64, 1)), [x, Out.unwritten(192, dtype=F), total])
    torch.testing.assert_close(sums, x.reshape(-1, 32).sum(1).repeat_interleave(32), rtol=0, atol=0)
    assert total_sum.item() == 192 * 193 / 2


def test_vector_loads_and_stores_move_four_numbers(host: HostKernels) -> None:
    x = numbers(256)
    (out,) = host.run("double_vectors", Launch((2, 1), (32, 1)), [x, Out.unwritten(256, dtype=F)])
    assert torch.equal(out, 2 * x)


def test_shared_memory_is_nan_at_the_start_of_every_block(host: HostKernels) -> None:
    (out,) = host.run("unwritten_shared", Launch((3, 1), (32, 1)), [numbers(1), Out.unwritten(96, dtype=F)])
    assert torch.equal(out[:32], torch.ones(32))
    assert out[32:].isnan().all()


def test_copies_arrive_when_they_are_waited_for(host: HostKernels) -> None:
    x = numbers(64)
    (out,) = host.run("copy_through_shared", Launch((1, 1), (32, 1), shared=256), [x, Out.unwritten(64, dtype=F)])
    assert torch.equal(out, x)
    early = Launch((3, 1), (32, 1), shared=128)
    (out,) = host.run("read_before_arrival", early, [x[:32], Out.unwritten(32, dtype=F)])
    assert out.isnan().all()


@pytest.mark.parametrize(
    ("kernel", "threads", "x", "out", "integers", "message"),
    [
        ("misaligned_load", 1, 8, 1, [], "misaligned address"),
        ("read_past_end", 32, 32, 32, [32], "heap-buffer-overflow.*READ of size 4"),
        ("write_past_end", 64, 40, 40, [40], "heap-buffer-overflow.*WRITE of size 4"),
        ("shared_row_overflow", 128, 128, 128, [], "index 32 out of bounds for type 'float \\[32\\]'"),
        ("shared_overflow", 64, 64, 64, [], "global-buffer-overflow.*'tile'"),
        ("no_barrier_before_read", 64, 64, 64, [], "depends on the order of the threads"),
        ("no_barrier_before_write", 64, 128, 1, [2], "depends on the order of the threads"),
        ("unordered_writes", 32, 32, 1, [], "depends on the order of the threads"),
        ("early_return", 64, 64, 32, [], "others have left by returning.*faulty_kernels.cuh"),
        ("two_barriers", 64, 64, 64, [], "different barriers.*faulty_kernels.cuh"),
        ("absent_lanes", 32, 32, 32, [], "lanes that do not take part.*faulty_kernels.cuh"),
        ("writes_input", 32, 32, 32, [], "writes to an input"),
        ("copy_left_behind", 32, 32, 32, [], "returns before its copies have arrived"),
        ("no_barrier_after_copy", 32, 32, 32, [], "depends on the order of the threads"),
        ("misaligned_copy", 1, 8, 1, [], "an asynchronous copy of misaligned memory"),
        ("dynamic_overflow", 32, 32, 32, [], "heap-buffer-overflow.*WRITE of size 4"),
    ],
)
def test_a_planted_mistake_is_caught(
    host: HostKernels, kernel: str, threads: int, x: int, out: int, integers: list[int], message: str
) -> None:
    launch = Launch((1, 1), (threads, 1), shared=128)
    with pytest.raises(HostFaultError) as caught:
        host.run(kernel, launch, [numbers(x), Out(torch.zeros(out))], integers)
    assert re.search(message, str(caught.value), re.DOTALL), caught.value


def test_an_element_number_in_32_bits_is_caught_at_the_end_of_a_huge_array(host: HostKernels) -> None:
    count = 2**32 + 5
    launch = Launch((count // 256 + 1, 1), (256, 1), last_block_only=True)
    with pytest.raises(HostFaultError, match="AddressSanitizer"):
        host.run(
            "narrow_index", launch, [Tail(numbers(5), count - 5), Out.unwritten(5, dtype=F, skip=count - 5)], [count]
        )


@pytest.mark.parametrize(
    ("grid", "block", "message"),
    [
        ((1, 65536), (32, 1), "invalid grid size"),
        ((0, 1), (32, 1), "invalid grid size"),
        ((1, 1), (32, 33), "invalid block size"),
    ],
)
def test_a_launch_that_cuda_would_refuse_is_refused(
    host: HostKernels, grid: tuple[int, int], block: tuple[int, int], message: str
) -> None:
    with pytest.raises(HostFaultError, match=message):
        host.run("double_vectors", Launch(grid, block), [numbers(128), Out.unwritten(128, dtype=F)])


def test_more_shared_memory_than_a_device_has_is_refused(host: HostKernels) -> None:
    launch = Launch((1, 1), (32, 1), shared=227 * 1024 + 1)
    with pytest.raises(HostFaultError, match="too much dynamic shared memory"):
        host.run("double_vectors", launch, [numbers(128), Out.unwritten(128, dtype=F)])


def test_an_unknown_kernel_is_an_error(host: HostKernels) -> None:
    with pytest.raises(HostFaultError, match="unknown kernel"):
        host.run("no_such_kernel", Launch((1, 1), (1, 1)), [])


def test_the_program_answers_again_after_a_fault(host: HostKernels) -> None:
    with pytest.raises(HostFaultError):
        host.run("writes_input", Launch((1, 1), (32, 1)), [numbers(32), Out.unwritten(32, dtype=F)])
    (out,) = host.run("double_vectors", Launch((1, 1), (2, 1)), [numbers(8), Out.unwritten(8, dtype=F)])
    assert torch.equal(out, 2 * numbers(8))

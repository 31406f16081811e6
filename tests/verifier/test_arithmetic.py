"""Arithmetic that changes under a proof, is shared by proofs, or is not what torch's settings say."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.verifier.graphs import constraint, conv, random_box, spec
from zonocuda import precision
from zonocuda.precision import check_arithmetic, full_precision, summed_products
from zonocuda.verifier import Verdict, VerifyResult, verify

CPU = torch.device("cpu")


def proof(progress: Callable[[], object], **options: Any) -> VerifyResult:
    """A property that holds, with something that happens whenever the proof says how far it is."""
    graph = conv(0)
    low, high = (b[0] for b in random_box(graph, width=0.01, seed=3))
    problem = spec(low, high, [[constraint({0: 1.0}, 1e6)]], 3)
    return verify(graph, problem, dtype=torch.float32, progress=lambda phase, done, total: progress(), **options)


@pytest.fixture
def restored() -> Iterator[None]:
    """Leaves torch as it was."""
    enabled = torch.backends.mkldnn.enabled  # type: ignore[attr-defined]
    legacy = torch.get_float32_matmul_precision()
    yield
    torch.backends.mkldnn.enabled = enabled  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision(legacy)
    torch.set_flush_denormal(False)


def libraries_on() -> None:
    """What other code may do at any time."""
    torch.backends.mkldnn.enabled = True  # type: ignore[attr-defined]


def less_precision() -> None:
    """The same, of products."""
    torch.set_float32_matmul_precision("medium")


def flush() -> None:
    """The same, of subnormal numbers."""
    torch.set_flush_denormal(True)


@pytest.mark.usefixtures("restored", "no_search")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (libraries_on, "convolutions by cuDNN, oneDNN or NNPACK were switched on by other code"),
        (less_precision, "products of less precision were switched on by other code"),
        (flush, "flushed to zero"),
    ],
)
def test_a_proof_under_which_the_arithmetic_changed_is_no_proof(change: Callable[[], None], reason: str) -> None:
    assert proof(lambda: None).verdict is Verdict.VERIFIED
    result = proof(change)
    assert result.verdict is Verdict.UNKNOWN
    assert reason in result.reason


@pytest.mark.usefixtures("restored", "no_search")
@pytest.mark.parametrize("change", [less_precision, flush])
def test_what_was_found_in_changed_arithmetic_is_not_gone_on_with(change: Callable[[], None], tmp_path: Path) -> None:
    assert proof(change, checkpoint=tmp_path).verdict is Verdict.UNKNOWN
    torch.set_flush_denormal(False)
    torch.set_float32_matmul_precision("highest")
    again = proof(lambda: None, checkpoint=tmp_path, resume=True)
    assert again.verdict is Verdict.VERIFIED
    assert not again.resumed


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("context", [summed_products, full_precision])
def test_the_end_of_one_proof_does_not_expose_another(context: Callable[[], object]) -> None:
    """Two threads that overlap: what one found is restored when both are through."""
    less_precision()
    libraries_on()
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with context():  # type: ignore[attr-defined]
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(10)
    is_off = precision._transforms_are_off if context is summed_products else precision._products_are_off
    with context():  # type: ignore[attr-defined]
        leave.set()
        thread.join()
        assert is_off()
    assert not is_off()


def transformed(x: Tensor, weight: Tensor, padding: int, groups: int) -> Tensor:
    """Winograd's F(2, 3) along the last axis, of a depthwise convolution with kernel rows of ones."""
    g0, g1, g2 = weight[0, 0, 1].tolist()
    d = F.pad(x, (1, 1, 1, 1))
    rows = d[..., :-2, :] + d[..., 1:-1, :] + d[..., 2:, :]
    out = torch.zeros_like(x)
    for j in range(0, x.shape[3] - 1, 2):
        d0, d1, d2, d3 = (rows[..., j + k] for k in range(4))
        m1, m4 = (d0 - d2) * g0, (d1 - d3) * g2
        m2, m3 = (d1 + d2) * (g0 + g1 + g2) / 2, (d2 - d1) * (g0 - g1 + g2) / 2
        out[..., j], out[..., j + 1] = m1 + m2 + m3, m2 - m3 - m4
    return out


def test_convolutions_that_transform_their_terms_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of torch's own kernel for ARM would be, whatever the settings say."""
    x, weight = torch.randn(1, 16, 18, 18), torch.ones(16, 1, 3, 3)
    torch.testing.assert_close(transformed(x, weight, 1, 16), F.conv2d(x, weight, padding=1, groups=16))
    real = F.conv2d

    def chosen(
        x: Tensor, weight: Tensor, bias: None, stride: object, padding: Any, dilation: object, groups: int
    ) -> Tensor:
        if groups == len(weight) and x.dtype == torch.float32:
            return transformed(x, weight, padding if isinstance(padding, int) else padding[0], groups)
        return real(x, weight, bias, stride, padding, dilation, groups)  # type: ignore[arg-type]

    check_arithmetic(CPU)
    precision.sums_terms.cache_clear()
    monkeypatch.setattr(F, "conv2d", chosen)
    try:
        with pytest.raises(ValueError, match=r"convolutions of torch.float32 on this machine transform their terms"):
            check_arithmetic(CPU)
        assert precision.sums_terms(CPU, torch.float64)
    finally:
        precision.sums_terms.cache_clear()

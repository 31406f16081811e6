"""The zonotope objective: slopes on the kink, and what the rules there change."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from zonocuda import nonsmooth, ops

CENTER = torch.tensor([[0.5, -0.25, 3.0, -3.0]], dtype=torch.float64)
GENERATORS = torch.tensor([[[1.0, 0.5, 0.5, 0.5], [0.25, 0.25, 0.25, 0.25]]], dtype=torch.float64)


def objective(slopes: Sequence[Tensor]) -> Tensor:
    """The sum of the offsets."""
    return ops.relu(CENTER, GENERATORS, slopes[0]).offset.sum()


def star() -> Tensor:
    lower, upper = ops.concretize(CENTER, GENERATORS)
    return torch.where((lower < 0) & (upper > 0), upper / (upper - lower), 0.5)


def test_the_usual_start_is_on_the_kink_and_the_rules_are_the_one_sided_derivatives() -> None:
    found = nonsmooth.audit_slopes(objective, [star()], devices=("cpu",))
    (report,) = found.devices
    assert (report.slopes, report.on_kink, report.exactly) == (2, 2, 2)  # two of four neurons cross
    lower, upper = (b[0, :2] for b in ops.concretize(CENTER, GENERATORS))
    changes = {c.rule: c.absolute for c in report.changes}
    # dmu/dlam: 0 with the envelope, -u/2 on the left, -l/2 on the right, the mean of both with even
    assert report.gradient == pytest.approx(0, abs=1e-15)
    assert changes["left"] == pytest.approx((upper / 2).norm().item())
    assert changes["right"] == pytest.approx((lower / 2).norm().item())
    assert changes["even"] == pytest.approx(((upper + lower) / 4).norm().item())
    assert changes["min_norm"] == pytest.approx(0, abs=1e-15)


def test_off_the_kink_no_rule_changes_anything() -> None:
    (report,) = nonsmooth.audit_slopes(objective, [star() * 0.5], devices=("cpu",)).devices
    assert (report.slopes, report.on_kink) == (2, 0)
    assert report.gradient > 0
    assert all(change.absolute == 0 for change in report.changes)


def test_a_relaxation_of_several_blocks_is_seen_as_well() -> None:
    def in_parts(slopes: Sequence[Tensor]) -> Tensor:
        return ops.relu_relaxation(*ops.concretize(CENTER, GENERATORS), slopes[0]).offset.sum()

    (report,) = nonsmooth.audit_slopes(in_parts, [star()], devices=("cpu",)).devices
    assert (report.slopes, report.on_kink) == (2, 2)


def test_where_there_is_no_gpu_the_audit_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = nonsmooth.audit_slopes(objective, [star()])
    assert found.between_devices is None
    assert found.reason == "cuda: torch sees no CUDA device"
    assert [d["device"] for d in found.to_json()["devices"]] == ["cpu"]
    with pytest.raises(ValueError, match="no device to run on"):
        nonsmooth.audit_slopes(objective, [star()], devices=("cuda",))


@pytest.mark.gpu
def test_the_default_rule_agrees_between_devices(cuda: torch.device) -> None:
    def anywhere(slopes: Sequence[Tensor]) -> Tensor:
        device = slopes[0].device
        return ops.relu(CENTER.to(device), GENERATORS.to(device), slopes[0]).offset.sum()

    found = nonsmooth.audit_slopes(anywhere, [star()])
    assert found.between_devices is not None
    assert found.between_devices < 1e-12

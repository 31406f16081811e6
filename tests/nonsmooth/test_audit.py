"""The audit: what it counts, what it calls compensation and what bifurcation, on programs whose answer is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.fleet.test_page import Checked
from zonocuda import nonsmooth
from zonocuda.nonsmooth import programs
from zonocuda.nonsmooth.conventions import Convention

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def total_loss(output: Tensor, *rest: Tensor) -> Tensor:
    return output.sum()


def run(model: nn.Module, batch: Any, loss: Any = total_loss, **options: Any) -> nonsmooth.AuditReport:
    return nonsmooth.audit(model, batch, loss, progress=False, **options)


class Notebook(nn.Module):
    """One of the notebook's programs at t = 0."""

    def __init__(self, inputs: Callable[[torch.dtype], Tensor]) -> None:
        super().__init__()
        self.t = nn.Parameter(torch.zeros(1))
        self.inputs = inputs

    def forward(self, x: Tensor) -> Tensor:
        return programs.zero(self.t, self.inputs(self.t.dtype))


def test_the_notebooks_programs_are_what_it_says_they_are() -> None:
    shared, first = Convention(max_all="even"), Convention(max_all="first")
    report = run(Notebook(programs.equal_inputs), torch.zeros(1, 1), a=shared, b=first, dtypes=DTYPES)
    # the change is the program's own derivative: the other maximum is a comparison, which passes all to the first
    expected = {"float16": 2.0**-12, "bfloat16": 0.0, "float32": 2.0**-24, "float64": 2.0**-53}
    assert {d.dtype: d.total.absolute for d in report.dtypes} == expected
    for d in report.dtypes:
        assert d.total.verdict == ("compensation" if expected[d.dtype] else "none")
    report = run(Notebook(programs.different_inputs), torch.zeros(1, 1), a=shared, b=first, dtypes=DTYPES)
    for d in report.dtypes:
        assert (d.total.verdict, d.total.absolute, d.total.ties, d.total.structural) == ("bifurcation", 1.5, 1, 1)


class Zeros(nn.Module):
    """A linear layer with ReLU; half of its outputs are exactly 0."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 4)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]]))
            self.linear.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.linear(x))


def test_zeros_of_a_relu_are_counted_and_are_bifurcations() -> None:
    x = torch.ones(6, 2)
    report = run(Zeros(), x, batch_size=2, dtypes=(torch.float32,))
    (layer,) = report["float32"].layers
    assert layer.layer == "(top):relu"
    assert (layer.calls, layer.elements, layer.ties, layer.reached) == (3, 24, 12, 12)
    assert (layer.structural, layer.induced, layer.tied_positive) == (12, 0, 0)
    assert (layer.minibatches, layer.differing, layer.verdict) == (3, 3, "bifurcation")
    assert layer.by_channel == [6, 6, 0, 0]
    # two samples of a minibatch, each adds (1, 1, 1) (weights and bias) to two neurons
    assert layer.absolute == pytest.approx((6 * 2.0**2) ** 0.5, rel=1e-6)
    assert layer.persistence == pytest.approx(1, rel=1e-6)


def test_a_tie_that_only_rounding_makes_is_called_induced() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    with torch.no_grad():
        model[0].weight.fill_(2.0**-13)
        model[0].bias.fill_(1.0)

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model[0]

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.inner(x) - 1)  # 2^-13, which float16 has no room for beside 1

    report = run(Shifted(), torch.ones(1, 1), dtypes=(torch.float16, torch.float32))
    half, single = report.dtypes
    assert (half.total.ties, half.total.structural, half.total.induced) == (1, 0, 1)
    assert single.total.ties == 0


def test_constant_windows_of_a_convolution_are_compensation_or_nothing() -> None:
    """All winners of a window have equal inputs, so that over the reals their gradients agree."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48, 2), nn.Tanh())
    x = torch.zeros(4, 1, 8, 8)
    x[:, :, :, 3:] = torch.rand(4, 1, 1, 1)  # tied windows with values that are not round
    for dtype in (torch.float16, torch.float32, torch.float64):
        layer = run(model, x, dtypes=(dtype,)).dtypes[0].layers[0]
        assert layer.kind == "max_pool"
        assert layer.tied_positive > 0
        assert layer.structural == layer.ties
        assert layer.verdict in ("none", "compensation")
        assert layer.relative < 10 * torch.finfo(dtype).eps


def test_the_whole_change_is_the_difference_of_two_plain_backward_passes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 3))
    x, y = (torch.randn(8, 1, 8, 8) * 2).round(), torch.randint(0, 3, (8,))
    with torch.no_grad():
        model[0].weight.copy_((model[0].weight * 8).round() / 8)  # ties are frequent
        model[0].bias.zero_()
    report = run(model, (x, y), F.cross_entropy, batch_size=8)
    grads = []
    for choice in ({"relu": 0.0, "max_pool": "first"}, {"relu": 1.0, "max_pool": "even"}):
        chosen = nonsmooth.replace(model, **choice)  # type: ignore[arg-type]
        loss = F.cross_entropy(chosen(x), y)
        grads.append(torch.cat([g.double().flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]))
    total = report["float32"].total
    assert total.ties > 0
    assert total.absolute == pytest.approx((grads[1] - grads[0]).norm().item(), rel=1e-12)
    assert total.relative == pytest.approx(((grads[1] - grads[0]).norm() / grads[0].norm()).item(), rel=1e-12)
    assert total.verdict == "bifurcation"


class EveryForm(nn.Module):
    """Each recorded function in each of its spellings."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        y = x * self.weight
        parts = [
            F.relu(y),
            y.relu(),
            torch.relu(y),
            torch.relu_(y.clone()),
            F.relu(y.clone(), inplace=True),
            F.leaky_relu(y, 0.1),
            y.abs(),
            torch.maximum(y, -y),
            torch.max(y, -y),
            y.max(1, keepdim=True).values,
            torch.max(y, 1).values.unsqueeze(1),
            y.max().expand(len(y), 1),
            F.max_pool2d(y.reshape(-1, 1, 2, 2), 2).flatten(1),
        ]
        return torch.cat(parts, 1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_spelling_is_recorded_and_its_values_and_gradients_are_torchs(dtype: torch.dtype) -> None:
    from zonocuda.nonsmooth.session import Session

    model = EveryForm().to(dtype)
    x = (torch.randint(-2, 3, (3, 4)) / 2).to(dtype)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([1.0, -1.0, 1.0, 2.0]))
    plain = model(x)
    session = Session(nonsmooth.TORCH, nonsmooth.OTHER)
    with session.running(model):
        recorded = model(x)
    assert torch.equal(plain, recorded)
    assert len(session.calls) == 13
    assert not session.unrecorded
    g = torch.randint(-4, 5, plain.shape).to(dtype)
    expected = torch.autograd.grad(plain, model.weight, g)[0]
    torch.testing.assert_close(torch.autograd.grad(recorded, model.weight, g)[0], expected, rtol=0.02, atol=1e-6)


def test_what_is_not_recorded_is_named() -> None:
    class Clamped(Zeros):
        def forward(self, x: Tensor) -> Tensor:
            y = self.linear(x)
            return F.hardtanh(y) + torch.where(y > 0, y, -y) + torch.where(x[:, :1] > 0, y, -y)

    report = run(Clamped(), torch.randn(4, 2))
    assert set(report["float32"].unrecorded) == {"hardtanh", "gt"}  # not the question to the data
    assert report["float32"].certificates[0].verdict == "unknown"
    assert "hardtanh" in str(report)


def test_a_branch_on_a_value_is_named() -> None:
    report = run(Notebook(programs.equal_inputs), torch.zeros(1, 1))
    assert set(report["float32"].unrecorded) == {"gt"}


def test_the_model_and_its_statistics_stay_as_they_are() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(72, 2))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x = torch.randn(5, 1, 8, 8)
    given = x.clone()
    report = run(model, x, batch_size=2, dtypes=(torch.float32, torch.float64))
    assert report.samples == 5
    assert report["float64"].total.minibatches == 3
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(x, given)
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_overflow_is_called_not_finite() -> None:
    class Large(Zeros):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 60000

    report = run(Large(), 60000 * torch.ones(2, 2), dtypes=(torch.float16,))
    assert report["float16"].total.verdict == "not finite"
    json.dumps(report.to_json(), allow_nan=False)


def test_a_report_is_plain_json_with_the_table_in_it() -> None:
    report = run(Zeros(), torch.ones(4, 2), dtypes=(torch.float32, torch.float16))
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["schema"] == "zonocuda.audit/1"
    assert [d["dtype"] for d in document["dtypes"]] == ["float32", "float16"]
    assert document["dtypes"][0]["layers"][0]["ties"] == 8
    assert document["conventions"][0]["relu"] == 0


def test_the_page_needs_nothing_else_and_escapes_names() -> None:
    class Odd(Zeros):
        pass

    Odd.__name__ = "<script>"
    page = nonsmooth.html_page(run(Odd(), torch.ones(4, 2)))
    assert "<script" not in page
    assert page.count("<svg") == 1  # one picture for one layer
    assert "http:" not in page
    assert "https:" not in page
    assert "channel 0: 4<" in page
    texts = Checked(page).texts
    assert {"ties", "channel", "8 structural", "0 made by rounding"} <= set(texts)
    explained = texts[texts.index("What the classes mean") :]
    assert {"none", "compensation", "bifurcation", "not finite", "structural", "induced"} <= set(explained)


def test_a_page_says_first_what_depends_on_the_choice_and_draws_no_empty_chart() -> None:
    (found,) = run(Zeros(), torch.ones(1000, 2)).dtypes
    assert found.total.relative > 0
    page = nonsmooth.html_page(run(Zeros(), torch.ones(1000, 2), batch_size=1000))
    (headline,) = (text for text in Checked(page).texts if text.startswith("In float32"))
    assert headline.startswith(
        "In float32 2,000 ties among 4,000 elements: the choice of derivative there changes the "
    )
    assert headline.endswith("bifurcation with all layers together (bifurcation in 1 layer).")
    positive = nn.Sequential(nn.Linear(2, 4), nn.ReLU())
    nn.init.constant_(positive[0].weight, 1.0)
    nn.init.constant_(positive[0].bias, 1.0)
    page = nonsmooth.html_page(run(positive, torch.ones(4, 2)))
    assert "<svg" not in page
    assert "0 ties among 16 elements: the gradient does not depend on the derivative that is chosen there." in page
    page = nonsmooth.html_page(run(nn.Linear(2, 4), torch.ones(4, 2)))
    assert "In float32 no function with ties was called." in page


@pytest.mark.parametrize(
    ("batch", "options", "message"),
    [
        (torch.zeros(0, 2), {}, "batch must hold tensors of one length"),
        ((torch.zeros(2, 2), torch.zeros(3)), {}, "batch must hold tensors of one length"),
        (torch.zeros(2, 2), {"batch_size": 0}, "batch_size must be at least 1"),
        (torch.zeros(2, 2), {"loss": lambda output: output}, "the loss must be a scalar"),
    ],
)
def test_errors(batch: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(Zeros(), batch, **options)


def test_active_dropout_is_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    with pytest.raises(ValueError, match=r"dropout is active in '1'; call model\.eval"):
        run(model, torch.zeros(2, 2))
    run(model.eval(), torch.zeros(2, 2))


def test_a_model_whose_path_depends_on_precision_is_refused() -> None:
    class Branch(Zeros):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y.abs() if x.dtype == torch.float32 else torch.relu(y)

    with pytest.raises(RuntimeError, match="control flow depends on its values"):
        run(Branch(), torch.ones(2, 2))

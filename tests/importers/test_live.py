"""A graph follows its module: what is computed with it is about the weights, flags and attributes of that moment."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zonocuda
from tests.importers.modules import Apply, weight
from zonocuda.domains import Zonotope
from zonocuda.graph import Graph
from zonocuda.importers import UnsupportedNetworkError, from_module, module_graph
from zonocuda.importers.aten import live as remembering

SHAPE = (1, 2, 2)


class Flagged(nn.Module):
    """Batch normalisation, a flag, a number, a plain tensor and a list that the forward pass reads."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Linear(8, 2)
        self.twice, self.factor, self.offset, self.parts = False, 0.5, torch.ones(2), [1.0, 2.0]
        self.epoch = 0

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(torch.relu(self.norm(self.conv(x))).flatten(1)) * self.factor + self.offset
        y = y * self.parts[1]
        return y * 2 if self.twice else y


def build() -> Flagged:
    torch.manual_seed(5)
    return Flagged().eval()


def rename(model: Flagged) -> None:
    model.head = nn.Linear(8, 2)


def assign(model: Flagged) -> None:
    model.norm.weight = nn.Parameter(torch.tensor([3.0, -1.0]))


def swap_data(model: Flagged) -> None:
    model.norm.weight.data = torch.tensor([3.0, -1.0])


def write_data(model: Flagged) -> None:
    model.norm.weight.data.fill_(7.0)  # does not change the tensor's version


def write_numpy(model: Flagged) -> None:
    assert model.norm.running_mean is not None
    model.norm.running_mean.numpy()[:] = 3.0


def write_storage(model: Flagged) -> None:
    model.norm.bias.data.untyped_storage().copy_(torch.tensor([4.0, 5.0]).untyped_storage())


def set_tensor(model: Flagged) -> None:
    with torch.no_grad():
        model.norm.weight.set_(torch.tensor([2.0, 9.0]))  # type: ignore[call-overload]


def step(model: Flagged) -> None:
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    model(torch.ones(1, *SHAPE)).sum().backward()
    optimiser.step()


def load(model: Flagged) -> None:
    torch.manual_seed(9)
    model.load_state_dict({k: torch.rand_like(v.float()).to(v.dtype) for k, v in model.state_dict().items()})


def load_assigned(model: Flagged) -> None:
    torch.manual_seed(9)
    state = {k: torch.rand_like(v.float()).to(v.dtype) for k, v in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


def train_for_a_while(model: Flagged) -> None:
    model.train()
    model(torch.rand(4, *SHAPE))  # running statistics
    model.eval()


def hook(model: Flagged) -> None:
    model.conv.register_forward_hook(lambda module, args, output: output * 3)


def list_entry(model: Flagged) -> None:
    model.parts[1] = 8.0


CHANGES: dict[str, Callable[[Flagged], object]] = {
    "a weight of a layer": lambda m: m.head.weight.data.mul_(3),
    "a weight of a batch normalisation": lambda m: nn.init.constant_(m.norm.weight, 5.0),
    "a submodule": rename,
    "a parameter": assign,
    "the data of a parameter": swap_data,
    "through .data": write_data,
    "through numpy": write_numpy,
    "through the storage": write_storage,
    "through set_": set_tensor,
    "a step of an optimiser": step,
    "load_state_dict": load,
    "load_state_dict that assigns": load_assigned,
    "statistics": train_for_a_while,
    "the dtype": lambda m: m.double(),
    "a flag": lambda m: setattr(m, "twice", True),
    "a number": lambda m: setattr(m, "factor", -2.0),
    "a tensor that is an attribute": lambda m: setattr(m, "offset", torch.tensor([4.0, 5.0])),
    "the numbers of a tensor that is an attribute": lambda m: m.offset.fill_(9.0),
    "an entry of a list": list_entry,
    "a hook": hook,
    "epsilon": lambda m: setattr(m.norm, "eps", 0.7),
    "tied weights": lambda m: setattr(m.norm, "bias", m.norm.weight),
}


def points(model: nn.Module) -> Tensor:
    dtype = next(model.parameters()).dtype
    return torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_computed_is_about_the_changed_module(name: str) -> None:
    """With a graph or one that was converted before, in turn, and with the module itself, in a loop."""
    model = build()
    graph = from_module(model, SHAPE)
    wide = graph.to(torch.float64)
    x = points(model).double()
    zonotope = Zonotope.from_box(x, x)
    before = model(points(model)).detach().double()
    torch.testing.assert_close(zonocuda.compute_bounds(model, zonotope).lower.detach(), before, rtol=1e-5, atol=1e-5)
    CHANGES[name](model)
    expected = model(points(model)).detach().double()
    assert name == "the dtype" or (expected - before).abs().max() > 1e-2  # the change is one
    for one in (model, wide if list(CHANGES).index(name) % 2 else graph):
        bounds = zonocuda.compute_bounds(one, zonotope)
        torch.testing.assert_close(bounds.lower.detach(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(wide(x).detach(), expected, rtol=1e-5, atol=1e-5)


def imports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the modules that are traced from here on."""
    traced: list[str] = []
    own = torch.export.export

    def counted(model: nn.Module, *args: object, **kwargs: object) -> object:
        traced.append(type(model).__name__)
        return own(model, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.export, "export", counted)
    return traced


def test_training_with_one_graph_has_the_gradients_of_the_new_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = build(), build()
    graph, traced = from_module(model, SHAPE), imports(monkeypatch)
    ours, theirs = (torch.optim.SGD(m.parameters(), lr=0.3) for m in (model, other))
    x = points(model)
    for _ in range(4):
        ours.zero_grad()
        theirs.zero_grad()
        zonocuda.compute_bounds(
            graph.to(torch.float64), Zonotope.from_box(x.double(), x.double())
        ).lower.sum().backward()
        other(x).sum().backward()
        for (name, parameter), expected in zip(model.named_parameters(), other.parameters(), strict=True):
            assert parameter.grad is not None, name
            assert expected.grad is not None
            torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-4, atol=1e-5)
        model.epoch += 1  # nothing in forward names it
        ours.step()
        theirs.step()
    assert not traced


def test_a_module_in_a_loop_is_imported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).eval()
    zonotope, traced = Zonotope.from_ball(torch.zeros(1, 3), 0.1), imports(monkeypatch)
    spec = zonocuda.Spec.robust(torch.zeros(3), 0.1, 0, outputs=2, clip=None)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        zonocuda.compute_bounds(model, zonotope).lower.sum().backward()
        optimiser.step()
        zonocuda.verify(model, spec)
        zonocuda.optimize_bounds(model, zonotope, torch.eye(2))
    assert traced == ["Sequential"]
    zonocuda.compute_bounds(copy.deepcopy(model), zonotope)
    assert len(traced) == 2


class Unprovable(nn.Module):
    """Its forward reads what cannot be compared."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.layer, self.calls, self.store = kind, nn.Linear(3, 2), 0, iter(range(1000))

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "counter":
            self.calls += 1
        if self.kind == "iterator" and next(self.store) > 900:
            return self.layer(x) * 2
        return self.layer(x)


@pytest.mark.parametrize("kind", ["counter", "iterator"])
def test_a_module_that_cannot_be_compared_is_imported_every_time(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, traced = Unprovable(kind).eval(), imports(monkeypatch)
    for _ in range(2):
        module_graph(model, (3,))
    assert len(traced) == 2


FACTOR = 3.0


class ReadsGlobal(nn.Module):
    """Reads a number of its file, by way of a function."""

    def forward(self, x: Tensor) -> Tensor:
        return scaled(x)


def scaled(x: Tensor) -> Tensor:
    return x * FACTOR


def test_a_number_of_the_modules_file_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = ReadsGlobal().eval(), torch.ones(1, 3, dtype=torch.float64)
    zonotope = Zonotope.from_box(x, x)
    assert zonocuda.compute_bounds(model, zonotope).lower.tolist() == [[3.0] * 3]
    monkeypatch.setitem(globals(), "FACTOR", 5.0)
    assert zonocuda.compute_bounds(model, zonotope).lower.tolist() == [[5.0] * 3]


def test_a_number_in_a_closure_is_followed() -> None:
    factor = 3.0
    model, x = Apply(lambda x: x * factor).eval(), torch.ones(1, 3, dtype=torch.float64)
    zonotope = Zonotope.from_box(x, x)
    assert zonocuda.compute_bounds(model, zonotope).lower.tolist() == [[3.0] * 3]
    factor = 5.0
    assert zonocuda.compute_bounds(model, zonotope).lower.tolist() == [[5.0] * 3]


def gained(x: Tensor) -> Tensor:
    return x * gained.gain  # type: ignore[attr-defined]


class Kind(type):
    gain = 3.0


class Held(metaclass=Kind):
    pass


class Numbers(list[float]):
    gain: float


class Options(dict[str, float]):
    gain: float


class Ratio(float):
    gain: float


class Unnamed(nn.Module):
    """Reads an attribute that its code does not name."""

    def __init__(self) -> None:
        super().__init__()
        self.some_gain = 3.0

    def forward(self, x: Tensor) -> Tensor:
        factor: float = attrgetter("_".join(["some", "gain"]))(self)
        return x * factor


def reads_gain(held: Any) -> tuple[nn.Module, Callable[[], None]]:
    held.gain = 3.0
    return Apply(lambda x: x * held.gain), lambda: setattr(held, "gain", 5.0)


def reads_key() -> tuple[nn.Module, Callable[[], None]]:
    table = {("a", 1): 3.0, ("b", 2): 5.0}

    def exchange() -> None:
        table.clear()
        table.update({("b", 2): 3.0, ("a", 1): 5.0})

    return Apply(lambda x: x * table["a", 1]), exchange


def reads_unnamed() -> tuple[nn.Module, Callable[[], None]]:
    model = Unnamed()
    return model, lambda: setattr(model, "some_gain", 5.0)


ATTRIBUTES: dict[str, Callable[[], tuple[nn.Module, Callable[[], None]]]] = {
    "a function": lambda: (Apply(gained), reads_gain(gained)[1]),
    "a metaclass": lambda: (Apply(lambda x: x * Held.gain), reads_gain(Kind)[1]),
    "a list": lambda: reads_gain(Numbers([1.0])),
    "a mapping": lambda: reads_gain(Options(a=1.0)),
    "a number": lambda: reads_gain(Ratio(1.0)),
    "a key that is a tuple": reads_key,
    "a name that is put together": reads_unnamed,
}


@pytest.mark.parametrize("kind", ATTRIBUTES)
def test_attributes_of_what_has_other_contents_are_followed(kind: str) -> None:
    model, change = ATTRIBUTES[kind]()
    x = torch.ones(1, 3, dtype=torch.float64)
    zonotope = Zonotope.from_box(x, x)
    assert zonocuda.compute_bounds(model.eval(), zonotope).lower.tolist() == [[3.0] * 3]
    change()
    assert zonocuda.compute_bounds(model, zonotope).lower.tolist() == [[5.0] * 3]


def test_a_module_that_went_into_training_mode_is_refused_with_the_remedy() -> None:
    model = build()
    graph = from_module(model, SHAPE)
    model.train()
    with pytest.raises(UnsupportedNetworkError, match=r"call model\.eval\(\) first .*'norm.training' changed"):
        graph.current()
    model.eval()
    graph.current()


def test_training_mode_of_layers_that_do_not_read_it_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    graph, traced = from_module(model, (3,)), imports(monkeypatch)
    model.eval()
    graph.current()
    assert not traced


def test_indices_that_are_a_buffer_are_followed() -> None:
    model = Apply(lambda x, i: x.index_select(1, i), i=torch.tensor([0, 1]))
    graph, x = from_module(model, (3,)), torch.tensor([[1.0, 2.0, 3.0]])
    assert isinstance(model.i, Tensor)
    model.i.copy_(torch.tensor([2, 2]))
    assert graph(x).tolist() == [[3.0, 3.0]]


def test_parametrised_weights_are_followed() -> None:
    torch.manual_seed(0)
    model = nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)).eval()
    graph, x = from_module(model, (3,)).to(torch.float64), torch.rand(2, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    torch.testing.assert_close(graph(x.double()).float(), model(x), rtol=1e-5, atol=1e-6)


def test_gradients_that_are_switched_on_later_are_recorded() -> None:
    model = build().requires_grad_(False)
    graph = from_module(model, SHAPE)
    x = points(model)
    assert not zonocuda.compute_bounds(
        graph.to(torch.float64), Zonotope.from_box(x.double(), x.double())
    ).lower.requires_grad
    model.norm.weight.requires_grad_(True)
    zonocuda.compute_bounds(graph.to(torch.float64), Zonotope.from_box(x.double(), x.double())).lower.sum().backward()
    assert model.norm.weight.grad is not None
    assert model.norm.weight.grad.abs().max() > 0


def test_the_executed_constants_follow_too() -> None:
    model = Apply(lambda x, w: nn.functional.linear(x, w @ w.t()), w=weight(3, 3))
    graph = from_module(model, (3,))
    (name,) = graph.executed
    with torch.no_grad():
        model.w.mul_(2)  # type: ignore[operator]
    old, new = graph.executed[name], graph.current().executed[name]
    torch.testing.assert_close(new.weight, 4 * old.weight)  # type: ignore[attr-defined]


def test_copies_and_pickles_do_not_follow() -> None:
    model = build()
    graph, x = from_module(model, SHAPE), points(model).double()
    wide = graph.to(torch.float64)
    expected = wide(x).detach()
    copies: list[Graph] = [copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))]
    write_data(model)
    assert (wide(x).detach() - expected).abs().max() > 1e-2
    for one in copies:
        assert one.origin is None
        torch.testing.assert_close(one.to(torch.float64)(x).detach(), expected)


def test_a_remembered_module_is_not_kept_alive() -> None:
    model = build()
    graph = module_graph(model, SHAPE)
    key, gone = id(model), weakref.ref(model)
    assert key in remembering._ENTRIES
    x = points(model).double()
    expected = model.double()(x).detach()
    del model
    gc.collect()
    assert gone() is None
    assert key not in remembering._ENTRIES
    torch.testing.assert_close(graph.to(torch.float64)(x).detach(), expected, rtol=1e-5, atol=1e-5)


def test_sixteen_threads_import_at_once() -> None:
    models = [nn.Sequential(nn.Linear(3, width + 1), nn.ReLU(), nn.Linear(width + 1, 2)).eval() for width in range(16)]
    x = torch.rand(2, 3)
    with ThreadPoolExecutor(16) as pool:
        graphs = list(pool.map(lambda model: from_module(model, (3,)), models))
    for model, graph in zip(models, graphs, strict=True):
        torch.testing.assert_close(graph(x), model(x))


def test_threads_share_one_module() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).eval()
    x = torch.rand(2, 3).double()
    expected = model(x.float()).detach().double()
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: zonocuda.compute_bounds(model, Zonotope.from_box(x, x)).lower, range(16)))
    for lower in found:
        torch.testing.assert_close(lower.detach(), expected, rtol=1e-5, atol=1e-6)

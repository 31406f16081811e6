"""What every wrapper relies on: the build, its errors, and the twins in the reference."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.ops.cases import CASES, OpCase
from tests.ops.samples import SHAPES
from tests.ops.test_in_place import CASES as IN_PLACE_CASES
from zonocuda import ops, reference
from zonocuda.ops import library


class CudaTensor(Tensor):
    """A tensor that says that it is on a GPU."""

    is_cuda = property(lambda self: True)  # type: ignore[assignment]


CPU_TENSOR = torch.zeros(2)
CUDA_TENSOR = CPU_TENSOR.as_subclass(CudaTensor)


def test_the_build_names_its_compiler_flags_and_torch() -> None:
    info = ops.build_info()
    assert set(info) == {"compiler", "flags", "torch", "cuda", "cuda_architectures"}
    assert info["compiler"]
    assert "-ffp-contract=off" in (info["flags"] or "")  # what rounding arguments rely on
    assert "fast-math" not in (info["flags"] or "")
    assert (info["cuda"] is None) == (info["cuda_architectures"] is None)


def test_the_stream_of_cuda_kernels_is_found_wherever_torch_has_cuda() -> None:
    assert ops.has_cuda_stream() == (torch.version.cuda is not None)


@pytest.mark.parametrize("key", ["CPU", "CUDA"])
def test_every_op_has_a_kernel_for_each_device_of_the_build(key: str) -> None:
    names = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith("zonocuda::")]
    assert names
    expected = key == "CPU" or ops.build_info()["cuda"] is not None
    assert {torch._C._dispatch_has_kernel_for_dispatch_key(name, key) for name in names} == {expected}


def test_a_cuda_tensor_in_a_build_without_cuda_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "build_info", lambda: {"cuda": None})
    library.check_tensors("relu", CPU_TENSOR)
    with pytest.raises(
        RuntimeError, match=r"^relu: zonocuda was built without CUDA; rebuild it with 'ZONOCUDA_CUDA=1 pip"
    ):
        library.check_tensors("relu", CUDA_TENSOR)
    monkeypatch.setattr(library, "build_info", lambda: {"cuda": "13.0"})
    library.check_tensors("relu", CUDA_TENSOR)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_wrapper_has_all_its_floating_point_tensors_checked(
    case: OpCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[tuple[str, tuple[Tensor | None, ...]]] = []
    module = sys.modules[f"zonocuda.ops.{case.name}"]
    monkeypatch.setattr(
        module, "check_tensors", lambda op, *tensors, optional=(): checked.append((op, (*tensors, *optional)))
    )
    for sample in case.samples(torch.device("cpu"), torch.float32, False, {"vector": SHAPES["vector"]}):
        checked.clear()
        case.native(sample)
        ((op, tensors),) = checked
        assert op == case.name
        for name, value in sample.inputs.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                assert any(t is value for t in tensors), f"{sample.name}: {name} is not checked"


def test_an_import_without_the_extension_says_how_to_build_it() -> None:
    program = "import sys; sys.modules['zonocuda._C'] = None; import zonocuda.ops"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "the native ops of zonocuda are not built for this Python and torch" in done.stderr
    assert "run 'pip install --no-build-isolation .' in the source folder" in done.stderr


def test_every_op_is_tested_and_has_a_reference_of_the_same_signature() -> None:
    registered = {
        name.partition("::")[2] for name in torch._C._dispatch_get_all_op_names() if name.startswith("zonocuda::")
    }
    names = {case.name for case in CASES}
    in_place = {case.name for case in IN_PLACE_CASES}
    assert registered == names | {f"_{name}_backward" for name in names} | in_place
    for name in names | in_place:
        assert (
            inspect.signature(getattr(ops, name)).parameters == inspect.signature(getattr(reference, name)).parameters
        )


def test_every_name_of_the_reference_is_one_of_the_ops() -> None:
    assert set(reference.__all__) <= set(ops.__all__)
    assert all(getattr(ops, name) is not getattr(reference, name) for name in reference.__all__)


class Recorder:
    """Stands for the native ops: says whether torch's layer for derivatives was left out of a call."""

    def __init__(self) -> None:
        self.left_out: list[bool] = []

    def __getattr__(self, name: str) -> Recorder:
        return self

    def __call__(self, *args: object) -> None:
        autograd = torch._C.DispatchKey.AutogradFunctionality
        self.left_out.append(torch._C._dispatch_tls_is_dispatch_key_excluded(autograd))


def test_the_layer_for_derivatives_is_left_out_where_none_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, x = Recorder(), torch.ones(2)
    monkeypatch.setattr(library, "NATIVE", recorder)
    library.call("op", x)
    with torch.no_grad():
        library.call("op", x.clone().requires_grad_())
    library.call("op", x.clone().requires_grad_())
    library.call("op", None, 1.0, x.clone().requires_grad_())
    library.call_in_place("op_", 1, x)
    assert recorder.left_out == [True, True, False, False, True]


def test_a_call_in_place_moves_the_versions_of_what_it_writes_alone() -> None:
    generators, multiplier = torch.ones(1, 2, 3), torch.full((1, 3), 2.0)
    versions = generators._version, multiplier._version
    ops.scale_(generators, multiplier)
    assert (generators._version - versions[0], multiplier._version - versions[1]) == (1, 0)


def test_ops_work_in_inference_mode() -> None:
    with torch.inference_mode():
        generators, multiplier = torch.ones(1, 2, 3), torch.full((1, 3), 2.0)
        assert torch.equal(ops.scale(generators, multiplier), 2 * generators)
        assert torch.equal(ops.scale_(generators, multiplier), torch.full((1, 2, 3), 2.0))


def test_a_result_of_its_own_shape_is_no_view_of_itself() -> None:
    x = torch.ones(2, 3)
    assert library.shaped(x, x.shape) is x
    assert library.shaped(x, torch.Size((3, 2))).shape == (3, 2)

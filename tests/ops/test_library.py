"""What every wrapper relies on: the build, its errors, and the twins in the reference."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor

from tests.ops.cases import CASES, OpCase
from tests.ops.samples import SHAPES
from tests.ops.test_in_place import CASES as IN_PLACE_CASES
from zonocuda import ops, reference
from zonocuda.ops import library

CUDA_TENSOR = cast(Tensor, SimpleNamespace(is_cuda=True))
CPU_TENSOR = cast(Tensor, SimpleNamespace(is_cuda=False))


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
    library.require_build_for("relu", CPU_TENSOR)
    with pytest.raises(
        RuntimeError, match=r"^relu: zonocuda was built without CUDA; rebuild it with 'ZONOCUDA_CUDA=1 pip"
    ):
        library.require_build_for("relu", CUDA_TENSOR)
    monkeypatch.setattr(library, "build_info", lambda: {"cuda": "13.0"})
    library.require_build_for("relu", CUDA_TENSOR)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_wrapper_has_all_its_floating_point_tensors_checked(
    case: OpCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[tuple[str, tuple[Tensor | None, ...]]] = []
    module = sys.modules[f"zonocuda.ops.{case.name}"]
    monkeypatch.setattr(module, "require_build_for", lambda op, *tensors: checked.append((op, tensors)))
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

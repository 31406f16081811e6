"""Builds zonocuda._C against the installed torch: C++ always, CUDA where it is asked for or can be used.

ZONOCUDA_CUDA=auto (default): with CUDA if the installed torch has CUDA and nvcc is there; 1: always; 0: never.
TORCH_CUDA_ARCH_LIST: the GPU architectures, by default those of DEFAULT_ARCHITECTURES.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import setuptools
import torch
from torch.utils import cpp_extension

ROOT = Path(__file__).parent
DEFAULT_ARCHITECTURES = "8.0;9.0+PTX"
# torch 2.11 compiles for C++17 where no standard is asked for. -g0: Python's own flags ask for debug information.
# Contraction to fused multiply-adds is off on every file: rounding arguments rely on it, and CPU and GPU agree.
# Nobody traps floating-point exceptions or reads errno: saying so changes no value and lets g++ vectorise selections
# and square roots.
CXX_FLAGS = ["-std=c++20", "-O3", "-g0", "-ffp-contract=off", "-fno-trapping-math", "-fno-math-errno"]
CXX_FLAGS = [*CXX_FLAGS, "-fvisibility=hidden", "-Wall", "-Wno-unknown-pragmas"]
NVCC_FLAGS = ["-std=c++20", "-O3", "--fmad=false", "-Xptxas=-v", "-Xcompiler=-g0,-fvisibility=hidden", "-DUSE_CUDA"]
PYTHON_ABI = "cp311"  # one binary, in the limited API of the oldest Python, serves all later ones


def find_cuda_home() -> Path | None:
    """The CUDA toolkit: a folder that has both bin/nvcc and include/cuda_runtime.h."""
    nvcc = shutil.which("nvcc")
    candidates = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    if nvcc:
        candidates.append(str(Path(nvcc).resolve().parent.parent))
    for candidate in filter(None, candidates):
        home = Path(candidate)
        if (home / "bin" / "nvcc").exists() and (home / "include" / "cuda_runtime.h").exists():
            return home
    return None


def cuda_home_to_use() -> Path | None:
    """The toolkit to build with, or None for a build without CUDA; ZONOCUDA_CUDA decides."""
    choice = os.environ.get("ZONOCUDA_CUDA", "auto")
    if choice not in ("auto", "0", "1"):
        sys.exit(f"ZONOCUDA_CUDA must be auto, 0 or 1, got {choice!r}")
    home = None if choice == "0" else find_cuda_home()
    if choice == "1" and home is None:
        sys.exit("ZONOCUDA_CUDA=1, but no CUDA toolkit was found: set CUDA_HOME to the folder that has bin/nvcc")
    if choice == "auto" and torch.version.cuda is None:
        return None
    return home


def nvcc_version(home: Path) -> str:
    """The release of nvcc, such as 13.0."""
    text = subprocess.run([home / "bin" / "nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"release ([\d.]+)", text)
    return match.group(1) if match else "unknown"


def extension() -> cpp_extension.CppExtension:
    """The one extension module, with CUDA sources where a toolkit is used."""
    home = cuda_home_to_use()
    sources = [*ROOT.glob("csrc/*.cpp"), *ROOT.glob("csrc/cpu/*.cpp")]
    headers = [*ROOT.glob("csrc/**/*.h"), *ROOT.glob("csrc/**/*.cuh")]
    facts = {"FLAGS": " ".join(CXX_FLAGS), "TORCH": torch.__version__}
    cxx, nvcc = list(CXX_FLAGS), list(NVCC_FLAGS)
    options: dict[str, list[str]] = {"libraries": ["dl"]}
    if home is not None:
        cpp_extension.CUDA_HOME = str(home)  # torch leaves it None where torch itself has no CUDA
        if not os.environ.get("TORCH_CUDA_ARCH_LIST"):
            os.environ["TORCH_CUDA_ARCH_LIST"] = DEFAULT_ARCHITECTURES
        kernels = list(ROOT.glob("csrc/cuda/*.cu"))
        if not kernels:
            sys.exit(
                f"ZONOCUDA_CUDA={os.environ.get('ZONOCUDA_CUDA', 'auto')} builds with CUDA here, but "
                f"{ROOT / 'csrc' / 'cuda'} holds no .cu file: take the whole source, or set ZONOCUDA_CUDA=0"
            )
        sources += kernels
        facts |= {"CUDA_VERSION": nvcc_version(home), "CUDA_ARCHITECTURES": os.environ["TORCH_CUDA_ARCH_LIST"]}
        cxx.append("-DZONOCUDA_WITH_CUDA")
        options = {
            "include_dirs": [str(home / "include")],
            "library_dirs": [str(home / "lib64")],
            # The runtime travels inside: no library of the toolkit has to be found where the extension is loaded. Its
            # symbols stay inside, too: torch loads a runtime of its own, of another version perhaps.
            "libraries": ["cudart_static", "dl", "pthread", "rt"],
            "extra_link_args": ["-Wl,--exclude-libs,libcudart_static.a"],
        }
    cxx += [f'-DZONOCUDA_{name}="{value}"' for name, value in facts.items()]
    print("zonocuda build:", "CUDA from " + str(home) if home else "without CUDA", facts, flush=True)
    return cpp_extension.CppExtension(
        "zonocuda._C",
        sorted(str(path.relative_to(ROOT)) for path in sources),
        depends=[str(path.relative_to(ROOT)) for path in headers],
        extra_compile_args={"cxx": cxx, "nvcc": nvcc},
        py_limited_api=True,
        **options,
    )


# The name of this argument changed with the field of the metadata that holds an SPDX expression.
LICENSE = "license_expression" if int(setuptools.__version__.split(".")[0]) >= 77 else "license"

setuptools.setup(
    **{LICENSE: "BSD-3-Clause"},
    ext_modules=[extension()],
    cmdclass={"build_ext": cpp_extension.BuildExtension.with_options(use_ninja=True)},
    options={"bdist_wheel": {"py_limited_api": PYTHON_ABI}},
)

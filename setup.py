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

import pybind11
import torch
from setuptools import setup
from torch.utils import cpp_extension

ROOT = Path(__file__).parent
DEFAULT_ARCHITECTURES = "8.0;9.0+PTX"
# Contraction to fused multiply-adds is off on every file: rounding arguments rely on it, and CPU and GPU agree.
# Nobody traps floating-point exceptions: saying so changes no value and lets g++ vectorise selections.
CXX_FLAGS = ["-O3", "-ffp-contract=off", "-fno-trapping-math", "-fvisibility=hidden", "-Wall", "-Wno-unknown-pragmas"]
NVCC_FLAGS = ["-O3", "--fmad=false", "-Xptxas=-v", "-Xcompiler=-fvisibility=hidden", "-DUSE_CUDA"]


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
    include_dirs, options = [pybind11.get_include()], {}
    if home is not None:
        cpp_extension.CUDA_HOME = str(home)  # torch leaves it None where torch itself has no CUDA
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", DEFAULT_ARCHITECTURES)
        sources += ROOT.glob("csrc/cuda/*.cu")
        facts |= {"CUDA_VERSION": nvcc_version(home), "CUDA_ARCHITECTURES": os.environ["TORCH_CUDA_ARCH_LIST"]}
        cxx.append("-DZONOCUDA_WITH_CUDA")
        include_dirs.append(str(home / "include"))
        options = {
            "library_dirs": [str(home / "lib64")],
            "libraries": ["cudart"],
            "extra_link_args": [f"-Wl,-rpath,{home / 'lib64'}"],
        }
    cxx += [f'-DZONOCUDA_{name}="{value}"' for name, value in facts.items()]
    print("zonocuda build:", "CUDA from " + str(home) if home else "without CUDA", facts, flush=True)
    return cpp_extension.CppExtension(
        "zonocuda._C",
        sorted(str(path.relative_to(ROOT)) for path in sources),
        depends=[str(path.relative_to(ROOT)) for path in headers],
        include_dirs=include_dirs,
        extra_compile_args={"cxx": cxx, "nvcc": nvcc},
        **options,
    )


setup(ext_modules=[extension()], cmdclass={"build_ext": cpp_extension.BuildExtension.with_options(use_ninja=True)})

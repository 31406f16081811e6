"""What a source distribution and a wheel contain, and what a build refuses.

The wheel is the one that ZONOCUDA_WHEEL names; `make cuda-check` builds it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from zonocuda.version import __version__

ROOT = Path(__file__).parents[1]
SOURCE_ENDINGS = {".h", ".cpp", ".cuh", ".cu"}


def tracked(*folders: str) -> set[str]:
    """The files below ``folders``, relative to the project."""
    return {str(p.relative_to(ROOT)) for folder in folders for p in (ROOT / folder).rglob("*") if p.is_file()}


def package_files() -> set[str]:
    """What of the package is no build output."""
    return {name for name in tracked("zonocuda") if name.endswith((".py", ".pyi", "py.typed"))}


def copied_source(folder: Path) -> Path:
    """What a build reads, in ``folder``."""
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
    for name in ("zonocuda", "csrc", "docs", "tests", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "Makefile", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    for name in ("README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def run_setup(folder: Path, *arguments: str, cuda: str) -> subprocess.CompletedProcess[str]:
    """setup.py of ``folder`` with ZONOCUDA_CUDA=``cuda``."""
    environment = {**os.environ, "ZONOCUDA_CUDA": cuda}
    command = [sys.executable, "setup.py", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


# ---- the source distribution ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files of a source distribution that is made without a CUDA toolkit."""
    folder = copied_source(tmp_path_factory.mktemp("sdist"))
    done = run_setup(folder, "-q", "sdist", cuda="0")
    assert done.returncode == 0, done.stderr
    (archive,) = (folder / "dist").iterdir()
    with tarfile.open(archive) as tar:
        return {member.name.partition("/")[2] for member in tar.getmembers() if member.isfile()}


def test_a_source_distribution_made_without_nvcc_holds_every_source(sdist: set[str]) -> None:
    sources = {name for name in tracked("csrc") if Path(name).suffix in SOURCE_ENDINGS}
    assert any(name.endswith(".cu") for name in sources)
    assert sources | package_files() <= sdist


def test_a_source_distribution_holds_what_a_build_and_a_reader_need(sdist: set[str]) -> None:
    assert {"setup.py", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "zonocuda/py.typed"} <= sdist
    assert tracked("docs") <= sdist


def test_a_source_distribution_holds_no_tests_and_no_build_outputs(sdist: set[str]) -> None:
    strange = {name for name in sdist if name.startswith(("tests/", "benchmarks/")) or name.endswith((".so", ".pyc"))}
    assert not strange


# ---- the build -----------------------------------------------------------------------------------------------------


@pytest.fixture
def toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a CUDA toolkit."""
    home = tmp_path / "toolkit"
    (home / "bin").mkdir(parents=True)
    (home / "include").mkdir()
    (home / "include" / "cuda_runtime.h").touch()
    nvcc = home / "bin" / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'release 13.0'\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(home))
    return home


def test_a_build_with_cuda_stops_where_the_kernels_are_missing(tmp_path: Path, toolkit: Path) -> None:
    folder = tmp_path / "incomplete"
    folder.mkdir()
    copied_source(folder)
    for kernel in (folder / "csrc" / "cuda").glob("*.cu"):
        kernel.unlink()
    done = run_setup(folder, "--version", cuda="1")
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]  # torch may warn of a missing GPU before
    assert re.fullmatch(r"ZONOCUDA_CUDA=1 .*, but .*csrc/cuda holds no \.cu file: .*", last), done.stderr


# ---- the wheel -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel() -> Path:
    """The wheel under test."""
    path = os.environ.get("ZONOCUDA_WHEEL")
    if not path:
        pytest.skip("no wheel is built here: ZONOCUDA_WHEEL names none (make cuda-check builds one and does)")
    return Path(path)


@pytest.fixture(scope="module")
def wheel_files(wheel: Path) -> set[str]:
    """Its files."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


@pytest.fixture(scope="module")
def library(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its extension module."""
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract("zonocuda/_C.abi3.so", tmp_path_factory.mktemp("wheel")))


def readelf(*arguments: str | Path) -> str:
    """What readelf prints."""
    return subprocess.run(["readelf", *arguments], capture_output=True, text=True, check=True).stdout


def test_a_wheel_is_for_every_python_from_the_oldest_and_for_many_linuxes(wheel: Path) -> None:
    assert re.fullmatch(r"zonocuda-[\d.]+-cp311-abi3-manylinux_[\w.]+_x86_64\.whl", wheel.name)
    assert wheel.name.split("-")[1] == __version__


def test_a_wheel_holds_the_package_the_extension_and_the_licence_and_nothing_else(wheel_files: set[str]) -> None:
    facts = {name for name in wheel_files if ".dist-info/" in name}
    assert wheel_files - facts == package_files() | {"zonocuda/_C.abi3.so"}
    assert any(name.endswith("LICENSE") for name in facts)


def test_the_extension_needs_torch_and_the_system_alone_and_knows_no_path_of_the_machine(library: Path) -> None:
    dynamic = readelf("-d", library)
    assert not re.search(r"\((RPATH|RUNPATH)\)", dynamic)
    needed = set(re.findall(r"\(NEEDED\).*\[(.*?)\.so[.\d]*\]", dynamic))
    system = {"libstdc++", "libgcc_s", "libc", "libm", "libdl", "libpthread", "librt", "ld-linux-x86-64"}
    assert needed - system <= {"libc10", "libtorch_cpu", "libtorch"}


def test_the_cuda_runtime_is_inside_the_extension_and_shows_no_symbol(library: Path) -> None:
    symbols = readelf("-W", "--dyn-syms", library)
    assert "PyInit__C" in symbols
    assert not re.search(r"\b_*cuda[A-Z]\w*", symbols)


def test_the_extension_holds_no_debug_information(library: Path) -> None:
    assert ".debug_info" not in readelf("-W", "-S", library)

"""Every command and every Python block of pages for users runs, from top to bottom, in a folder with the examples."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from zonocuda.cli.main import main

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", DOCS / "index.md", DOCS / "fleet.md", *(DOCS / "how-to").glob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user stands: the examples beside."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_command(line: str) -> None:
    """One line of a console block; ``zonocuda`` runs in this process."""
    words = shlex.split(line)
    if words[0] == "zonocuda":
        assert main(words[1:]) == 0, line
    else:
        words[0] = sys.executable if words[0] == "python" else words[0]
        subprocess.run(words, check=True, timeout=60, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(page: Path, folder: Path) -> None:
    if "zonocuda check" in page.read_text():
        pytest.importorskip("flint", reason="python-flint is not installed")
    names: dict[str, object] = {"__name__": page.stem}
    for kind, text in BLOCK.findall(page.read_text()):
        if page.name == "README.md" and not kind:
            continue  # set-up, and what the commands take
        assert kind in ("python", "console", "text"), f"{page.name}: a block of kind {kind!r}"
        if kind == "python":
            exec(compile(text, str(page), "exec"), names)
        elif kind == "console":
            for line in text.splitlines():
                assert line.startswith("$ "), line
                run_command(line.removeprefix("$ "))


@pytest.mark.parametrize("name", ["math", "nonsmooth"])
def test_the_python_of_an_explanation_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = [text for kind, text in BLOCK.findall((DOCS / f"{name}.md").read_text()) if kind == "python"]
    assert blocks
    for text in blocks:
        exec(compile(text, name, "exec"), {"__name__": name})


def test_no_page_has_python_that_nothing_runs() -> None:
    with_python = {page for page in DOCS.rglob("*.md") if re.search(r"^```python$", page.read_text(), re.MULTILINE)}
    assert {page.stem for page in with_python - set(PAGES)} == {"math", "nonsmooth", "scaling"}


def test_every_page_for_users_has_something_that_runs_but_the_table_of_names() -> None:
    without = {page.stem for page in PAGES if not re.search(r"^```(python|console)$", page.read_text(), re.MULTILINE)}
    assert without == {"other-tools"}


def test_the_readme_and_the_site_have_one_table_beside_others() -> None:
    def table(path: Path) -> list[str]:
        (found,) = re.findall(r"^\| \| rounding of .*\n(?:\|.*\n)+", path.read_text(), re.MULTILINE)
        return str(found).replace("](docs/", "](").splitlines()

    rows = table(ROOT / "README.md")
    assert rows == table(DOCS / "index.md")
    for row in rows[2:]:
        for cell in row.split("|")[2:-1]:
            assert not cell.strip() or re.search(r"\(.*\)", cell), f"no source: {cell}"


@pytest.mark.slow
def test_the_script_of_several_ranks_runs_under_torchrun(tmp_path: Path) -> None:
    page = (DOCS / "scaling.md").read_text()
    ((_, script),) = BLOCK.findall(page)
    assert "torchrun --nproc-per-node 4 script.py" in page
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(tmp_path / "script.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install 'zonocuda[docs]'")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed: pip install 'zonocuda[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "reference" / "python.html").read_text()
    import zonocuda

    for name in zonocuda.__all__:
        if not name.startswith("_"):
            assert f'id="zonocuda.{name}"' in page, name

"""What a visitor of the repository and a packager read: one version everywhere, commands and files that exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from zonocuda.version import __version__

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[1]


def read(name: str) -> Any:
    """A YAML file of the project."""
    return yaml.safe_load((ROOT / name).read_text())


def test_one_version_is_named_everywhere() -> None:
    recipe = read("packaging/conda/recipe.yaml")
    assert recipe["context"]["version"] == __version__
    assert read("CITATION.cff")["version"] == __version__
    assert re.search(rf"^## \[{re.escape(__version__)}\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_a_commit_that_is_tagged_as_a_version_is_that_one() -> None:
    command = ["git", "tag", "--points-at", "HEAD", "--list", "v[0-9]*"]
    tags = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split()
    if not tags:
        pytest.skip("this commit has no tag of a version")
    assert tags == [f"v{__version__}"]


def test_one_licence_is_named_everywhere() -> None:
    licence = read("CITATION.cff")["license"]
    assert licence == read("packaging/conda/recipe.yaml")["about"]["license"]
    assert f'**{{LICENSE: "{licence}"}}' in (ROOT / "setup.py").read_text()


def test_the_hooks_before_a_commit_run_what_make_lint_runs() -> None:
    hooks = {hook["name"]: shlex.split(hook["entry"]) for hook in read(".pre-commit-config.yaml")["repos"][0]["hooks"]}
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert lint is not None
    for name, entry in hooks.items():
        words = [word for word in entry if word not in ("python", "-m", "--force-exclude")]
        assert " ".join(words) in lint[1], name
    assert len(hooks) == lint[1].count("\n")


def test_the_extra_all_holds_every_extra_of_users() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    inside = re.search(r"\[(.*)\]", everything)
    assert inside is not None
    assert set(inside[1].split(",")) == set(extras) - {"all", "test", "lint", "wheel", "docs"}


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "docs"])
def test_links_between_files_lead_to_files_and_headings(name: str) -> None:
    files = sorted((ROOT / name).glob("*.md")) if (ROOT / name).is_dir() else [ROOT / name]
    for file in files:
        for target in re.findall(r"\]\(([^)\s]+)\)", file.read_text()):
            if "://" in target:
                continue
            where, _, anchor = target.partition("#")
            path = file if not where else (file.parent / where)
            assert path.exists(), (file.name, target)
            if anchor:
                headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
                slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert anchor in slugs, (file.name, target)

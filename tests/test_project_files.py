"""What a visitor of the repository and a packager read: one version everywhere, commands and files that exist."""

from __future__ import annotations

import re
import shlex
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


def test_the_conda_recipe_asks_for_what_the_package_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]["check"]
    wanted = {re.split(r"[<>=]", entry)[0] for entry in (*project["dependencies"], *extra)} - {"torch", "vnnlib"}
    run = {entry.split()[0] for entry in read("packaging/conda/recipe.yaml")["requirements"]["run"]}
    assert run == wanted | {"python", "pytorch"}
    (command,) = project["scripts"].items()
    assert read("packaging/conda/recipe.yaml")["build"]["python"]["entry_points"] == [" = ".join(command)]


def test_the_extra_all_holds_every_extra_of_users() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    inside = re.search(r"\[(.*)\]", everything)
    assert inside is not None
    assert set(inside[1].split(",")) == set(extras) - {"all", "test", "lint", "wheel", "docs"}


def test_the_container_file_installs_what_it_built() -> None:
    lines = (ROOT / "packaging" / "Containerfile").read_text().replace("\\\n", " ").splitlines()
    words = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert {word for word, _ in words} <= {"ARG", "FROM", "RUN", "COPY", "USER", "WORKDIR", "ENTRYPOINT", "CMD"}
    assert [word for word, _ in words].count("FROM") == 2
    assert any("pip wheel --no-build-isolation" in rest for _, rest in words)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (entry,) = (rest for word, rest in words if word == "ENTRYPOINT")
    assert yaml.safe_load(entry) == list(project["scripts"])


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda p: p.stem)
def test_an_issue_form_asks_for_what_is_needed(path: Path) -> None:
    form = read(str(path.relative_to(ROOT)))
    assert {"name", "description", "body"} <= set(form)
    assert all(entry["type"] == "textarea" and entry["attributes"]["label"] for entry in form["body"])
    assert len({entry["id"] for entry in form["body"]}) == len(form["body"])


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

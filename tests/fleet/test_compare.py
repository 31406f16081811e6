"""Two sets of results: contradictions first, and nothing left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fleet.test_page import HOSTILE, Checked
from zonocuda.cli.main import main
from zonocuda.fleet.compare import KINDS, Result, cactus, paired, read_results
from zonocuda.fleet.compare_page import comparison_page, headline
from zonocuda.fleet.record import Record
from zonocuda.fleet.store import Store

THEIRS = """\
acasxu,./benchmarks/acasxu/onnx/a.onnx,./benchmarks/acasxu/vnnlib/p1.vnnlib,0.5,unsat,1.5
acasxu,./benchmarks/acasxu/onnx/a.onnx,./benchmarks/acasxu/vnnlib/p2.vnnlib,0.5,unsat,2
acasxu,./benchmarks/acasxu/onnx/a.onnx,./benchmarks/acasxu/vnnlib/p3.vnnlib,0.5,timeout,116
acasxu,./benchmarks/acasxu/onnx/a.onnx,./benchmarks/acasxu/vnnlib/p4.vnnlib,0.5,error_exit_code_1,3
acasxu,./benchmarks/acasxu/onnx/a.onnx,./benchmarks/acasxu/vnnlib/p6.vnnlib,0.5,sat,4
"""


def record(spec: str, verdict: str, seconds: float, net: str = "onnx/a.onnx.gz") -> Record:
    return Record(f"{net}{spec}", "name", net, spec, "", "", None, {}, verdict, "", seconds=seconds)


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    store = Store(tmp_path / "ours", resume=False)
    for spec, verdict, seconds in (
        ("p1", "timeout", 9.0),  # run again below
        ("p2", "falsified", 2.0),
        ("p3", "verified", 3.0),
        ("p4", "unknown", 4.0),
        ("p5", "verified", 5.0),
        ("p1", "verified", 1.0),
    ):
        store.add(record(f"vnnlib/{spec}.vnnlib.gz", verdict, seconds))
    store.close()
    return tmp_path / "ours"


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    path = tmp_path / "theirs.csv"
    path.write_text(THEIRS)
    return path


def test_contradictions_come_first_then_what_only_one_decides(ours: Path, theirs: Path) -> None:
    pairs = paired(read_results(ours), read_results(theirs))
    assert [(pair.kind, Path(pair.name[1]).name.split(".")[0]) for pair in pairs] == [
        ("contradiction", "p2"),
        ("decided by one", "p3"),
        ("both open", "p4"),
        ("only in one", "p5"),
        ("only in one", "p6"),
        ("same", "p1"),
    ]


def test_the_command_prints_what_differs_and_ends_with_one_at_a_contradiction(
    ours: Path, theirs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["compare", str(ours), str(theirs), "--json", str(tmp_path / "c.json")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "contradiction",
        "falsified",
        "/",
        "verified",
        "onnx/a.onnx.gz",
        "vnnlib/p2.vnnlib.gz",
        "2.00",
        "/",
        "2.00",
        "s",
    ]
    assert lines[5] == "6 instances: 1 contradiction, 1 decided by one, 1 both open, 2 only in one, 1 same"
    assert lines[6].endswith(
        "3 verified, 1 falsified, 1 unknown; decided 1 in 1 s, 4 in 10 s, 4 in 100 s, 4 in all, 11.0 s together"
    )
    document = json.loads((tmp_path / "c.json").read_text())
    assert document["schema"] == "zonocuda.compare/1"
    assert [one["cactus"] for one in document["sets"]] == [[1.0, 2.0, 3.0, 5.0], [1.5, 2.0, 4.0]]
    assert document["kinds"]["contradiction"] == 1
    assert document["instances"][0]["verdicts"] == ["falsified", "verified"]


def test_the_page_has_contradictions_first_then_a_curve_of_each_set_and_every_instance(
    ours: Path, theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(ours), str(theirs), "--html", str(tmp_path / "c.html")]) == 1
    assert "contradiction" in capsys.readouterr().out, "the lines are printed as well"
    text = (tmp_path / "c.html").read_text()
    parsed = Checked(text)
    headings = [text.index(f"<h2>{title}</h2>") for title in ("Contradictions", "Decided within a time", "Instances")]
    assert headings == sorted(headings)
    assert f"onnx/a.onnx.gz, vnnlib/p2.vnnlib.gz: {ours} falsified; {theirs} verified" in parsed.texts
    curves = [(curve["points"] or "").split() for curve in parsed.named("polyline")]
    assert [len(points) - 1 for points in curves] == [4, 3], "a point for each that is decided"
    words = [row["data-word"] for row in parsed.named("tr") if "data-word" in row]
    assert words == ["contradiction", "decided by one", "both open", "only in one", "only in one", "same"]
    cells = [cell["data-value"] for cell in parsed.named("td")]
    assert cells[:7] == ["0", "onnx/a.onnx.gz", "vnnlib/p2.vnnlib.gz", "falsified", "verified", "2.0", "2.0"]
    assert cells[21:28] == ["3", "onnx/a.onnx.gz", "vnnlib/p5.vnnlib.gz", "verified", "absent", "5.0", ""]
    assert set(KINDS) <= set(parsed.texts), "and what each word means"
    assert not {"src", "href", "action"} & {name for _, attributes in parsed.tags for name in attributes}
    assert "http" not in text.replace("http-equiv", "")


def test_the_headline_counts_contradictions_and_what_each_decides(ours: Path, theirs: Path) -> None:
    found = paired(read_results(ours), read_results(theirs))
    assert headline(("a", "b"), found) == (
        "Of 6 instances 1 has contradicting verdicts (1 decided by one, 1 both open, 2 only in one, 1 same). "
        "a decides 4 of 5, in 11 seconds together. b decides 3 of 5, in 7.5 seconds together."
    )
    alike = paired(read_results(ours), read_results(ours))
    assert headline(("a", "b"), alike).startswith("Of 5 instances none has contradicting verdicts (5 same).")
    page = comparison_page(("a", "b"), alike)
    assert "<h2>Contradictions</h2>" not in page
    undecided = [Result("n", "p", "unknown", 1.0)]
    assert "<svg" not in comparison_page(("a", "b"), paired(undecided, undecided)), "no empty chart"


def test_names_of_a_comparison_are_text_whatever_they_hold() -> None:
    first, second = [Result(HOSTILE, HOSTILE, "verified", 1.0)], [Result(HOSTILE, HOSTILE, "falsified", 2.0)]
    parsed = Checked(comparison_page((HOSTILE, HOSTILE), paired(first, second)))
    assert len(parsed.named("script")) == 1
    assert not parsed.named("img")
    assert all(not name.startswith("on") for _, attributes in parsed.tags for name in attributes)


def test_a_page_that_cannot_be_written_is_one_line_before_anything_is_compared(
    ours: Path, theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (tmp_path / "absent" / "c.html", theirs):
        assert main(["compare", str(ours), str(theirs), "--html", str(path)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "cannot be written" in err
        assert err.count("\n") == 1
    assert theirs.read_text() == THEIRS


def test_equal_sets_have_no_difference(ours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(ours), str(ours)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "5 instances: 5 same"


def test_names_that_are_there_several_times_are_told_apart_by_their_folders() -> None:
    first = [Result("a/net.onnx", "p.vnnlib", "verified", 1.0), Result("b/net.onnx", "p.vnnlib", "falsified", 1.0)]
    second = [Result("./b/net.onnx.gz", "p.vnnlib", "falsified", 2.0), Result("a/net.onnx", "p.vnnlib", "unknown", 2.0)]
    assert [(pair.name[0], pair.kind) for pair in paired(first, second)] == [
        ("a/net.onnx", "decided by one"),
        ("b/net.onnx", "same"),
    ]
    assert cactus(first + second) == [1.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no results"),
        ("a,b\n", "line 1: must be category,network,property"),
        ("a,b,c,0,unsat,1\na,b,c,0,unsat,soon\n", "line 2: must be category"),
        ("a,b,c,0,unsat,nan\n", "line 1: 'nan' is no number of seconds"),
        (b"\xff\n", "is no file of results"),
    ],
)
def test_what_is_no_file_of_results_is_one_line(
    text: str | bytes, message: str, tmp_path: Path, ours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrong.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    assert main(["compare", str(ours), str(tmp_path / "wrong.csv")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_a_folder_without_results_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(tmp_path), str(tmp_path)]) == 2
    assert main(["report", str(tmp_path)]) == 2
    assert main(["report", str(tmp_path / "absent")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "holds no results.jsonl" in lines[0]

"""A check that was interrupted goes on with what was noted, to the same answer; nothing else is believed."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pytest

from tests.check.certificates import KINDS, certified, inline, threshold
from tests.check.test_forests import case, false_one
from zonocuda.checker import CertificateError, Checked, check, check_proof, derive, maps, trees, verdict
from zonocuda.checker.arguments import Claimed
from zonocuda.checker.journal import Arrays, Journal
from zonocuda.checker.parallel import Work, in_order
from zonocuda.checker.proof import Sources
from zonocuda.cli.main import main
from zonocuda.specs import Spec
from zonocuda.verifier import verify

ROOT = Path(__file__).parents[2]
NET, SPEC = ROOT / "examples" / "networks" / "fc.onnx", ROOT / "examples" / "specs" / "fc_10_0.04.vnnlib"


class Interrupted(Exception):  # noqa: N818 - it is an outcome
    """What ends a check after so many batches."""


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "SETS_AT_ONCE", 1)
    monkeypatch.setattr(trees, "LEAVES_AT_ONCE", 700)
    monkeypatch.setattr(derive, "ROWS_AT_ONCE", 60)
    monkeypatch.setattr(maps, "BALLS_AT_ONCE", 60)


def interrupted_after(count: int, patch: pytest.MonkeyPatch) -> list[str]:
    """Lets a check note so many batches; the names of those that were done are added to what is returned."""
    done: list[str] = []
    note = Journal.note

    def counted(journal: Journal, name: str, found: Arrays) -> None:
        if len(done) == count:
            raise Interrupted
        note(journal, name, found)
        done.append(name)

    patch.setattr(Journal, "note", counted)
    return done


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("kind", ["box", "lemmas", "whole", "whole, in balls"])
def test_a_check_goes_on_where_it_was_to_the_same_answer(
    kind: str, jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = kind == "whole, in balls"
    if kind.startswith("whole"):
        graph, property_ = threshold("residual", 2, KINDS["residual", 2])
        entry = certified(graph, property_)
    else:
        graph, property_, certificate = case(kind)
        entry = inline(certificate)
    for name, about in (("true", property_), ("false", false_one(graph, property_))):
        files = {"certificate": tmp_path / name}
        files["certificate"].write_text(name)

        def again(journal: Journal | None) -> Checked:
            return check_proof(entry, graph, about, None, Sources(exact=exact, work=Work(jobs, journal)))  # noqa: B023

        wanted = again(None)
        assert wanted.confirmed == (name == "true")
        counts = []
        for stop in (0, 2, 5, 10**6):
            journal = Journal(tmp_path / f"{name}.journal", files, {})
            with monkeypatch.context() as patch:
                done = interrupted_after(stop, patch)
                with contextlib.suppress(Interrupted):
                    assert again(journal) == wanted
            counts.append(len(done))
            assert journal.resumed == sum(counts[:-1])  # nothing is done twice
            journal.close()
        assert counts[:2] == [0, 2]
        assert sum(counts) > (3 if name == "true" else 1)


def test_what_was_cut_short_is_done_again_and_what_was_changed_is_refused(tmp_path: Path) -> None:
    graph, property_, certificate = case("box")
    entry, files = inline(certificate), {"certificate": tmp_path / "about"}
    files["certificate"].write_text("x")
    path = tmp_path / "journal"

    def again(how: dict[str, object]) -> tuple[int, Checked]:
        journal = Journal(path, files, how)
        try:
            return journal.resumed, check_proof(entry, graph, property_, None, Sources(work=Work(1, journal)))
        finally:
            journal.close()

    wanted = again({"exact": False})[1]
    assert wanted.confirmed
    whole = path.read_bytes()
    lines = whole.count(b"\n") - 1
    for size in range(0, len(whole), max(1, len(whole) // 25)):
        path.write_bytes(whole[:size])
        resumed, found = again({"exact": False})
        assert found == wanted
        assert resumed == max(0, whole[:size].count(b"\n") - 1)
        assert path.read_bytes() == whole
    assert lines > 3
    head = whole.index(b"\n") + 1
    for place in range(0, len(whole) - 1, max(1, len(whole) // 40)):
        edited = bytearray(whole)
        edited[place] ^= 1
        path.write_bytes(edited)
        with pytest.raises(CertificateError, match=r"is damaged|no file of|about another check"):
            again({"exact": False})
    first, second, *rest = whole[head:].splitlines(keepends=True)
    swapped = second.split(b" ")[0] + b" " + b" ".join(first.split(b" ")[1:])
    path.write_bytes(whole[:head] + swapped + second + b"".join(rest))
    with pytest.raises(CertificateError, match="is damaged"):
        again({"exact": False})
    path.write_bytes(whole)
    with pytest.raises(CertificateError, match="exact differs"):
        again({"exact": True})
    files["certificate"].write_text("y")
    with pytest.raises(CertificateError, match="certificate differs"):
        again({"exact": False})
    path.write_text("notes of mine\n")
    with pytest.raises(CertificateError, match="no file of 'zonocuda check --resume'"):
        again({"exact": False})
    assert path.read_text() == "notes of mine\n"


def test_a_disk_that_is_full_ends_the_notes_and_not_the_check(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    about = {"certificate": tmp_path / "about"}
    about["certificate"].write_text("x")
    journal = Journal(tmp_path / "journal", about, {})
    journal._file = open("/dev/full", "r+b")  # noqa: SIM115
    graph, property_, certificate = case("box")
    assert check_proof(inline(certificate), graph, property_, None, Sources(work=Work(1, journal))).confirmed
    journal.close()
    assert "not written any more: No space left" in journal.words[-1]


def test_the_command_notes_goes_on_and_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    net, spec, cert, path = (tmp_path / name for name in ("n.onnx", "p.vnnlib", "c.zip", "journal"))
    shutil.copy(NET, net)
    shutil.copy(SPEC, spec)
    cert.write_bytes(verify(net, spec, certificate=True).proof(net, spec))
    with monkeypatch.context() as patch:
        interrupted_after(2, patch)
        with pytest.raises(Interrupted):
            check(cert, net, spec, resume=path)
    assert main(["check", str(cert), str(net), str(spec), "--exact", "--resume", str(path)]) == 2
    assert "exact differs; remove it" in capsys.readouterr().err
    assert main(["check", str(cert), str(net), str(spec), "--resume", str(path)]) == 0
    assert "2 batches were done before" in capsys.readouterr().out
    assert not path.exists()
    with pytest.raises(TypeError, match="resume needs files"):
        check(verify(net, spec, certificate=True), net, spec, resume=path)
    with monkeypatch.context() as patch:  # a file that is exchanged meanwhile
        patch.setattr(Journal, "note", lambda *_: spec.write_text(spec.read_text() + "\n"))
        with pytest.raises(CertificateError, match="was changed while it was checked"):
            check(cert, net, spec, resume=path)


def test_nothing_is_noted_of_a_file_that_was_exchanged_before_it_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, property_, certificate = case("box")
    spec, cert, path = tmp_path / "p.vnnlib", tmp_path / "c.json", tmp_path / "journal"
    files = {"net": None, "spec": None}  # made of what was no file
    document = {"schema": "zonocuda.verify/1", "verdict": "verified", "ran": {"semantics": "real"}, "files": files}
    cert.write_text(json.dumps({**document, "certificate": inline(certificate)}))
    net = tmp_path / "n.onnx"
    net.write_bytes(b"")
    monkeypatch.setattr(verdict, "network_of", lambda path: Claimed(graph, graph, "the graph", None, str(path)))
    read: dict[str, Spec] = {"true": property_, "false": false_one(graph, property_)}
    monkeypatch.setattr(verdict, "spec_of", lambda path: read[path.read_text()])
    spec.write_text("false")
    with monkeypatch.context() as patch:

        def exchanged(path: Path) -> Spec:
            path.write_text("true")
            return read[path.read_text()]

        patch.setattr(verdict, "spec_of", exchanged)
        with pytest.raises(CertificateError, match="was changed while it was checked"):
            check(cert, net, spec, resume=path)
    spec.write_text("false")
    assert not check(cert, net, spec, resume=path).confirmed


@pytest.mark.parametrize("payload", ["x", "9:AAAA", "1:AAAA", "0:A"])
def test_a_line_that_holds_no_arrays_is_refused(payload: str, tmp_path: Path) -> None:
    about = {"certificate": tmp_path / "about"}
    about["certificate"].write_text("x")
    journal = Journal(tmp_path / "journal", about, {})
    journal._write(f"name {payload} {journal._sum(f'name {payload}'.encode())}\n")
    journal.close()
    again = Journal(tmp_path / "journal", about, {})
    with pytest.raises(CertificateError, match="is damaged: remove it"):
        again.known("name")
    again.close()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_batch_that_ends_oddly_is_not_the_last_one(jobs: int) -> None:
    def task(number: int) -> int:
        if number == 1:
            raise StopIteration
        return number

    with pytest.raises(RuntimeError, match="StopIteration"):
        list(in_order(task, 3, jobs))

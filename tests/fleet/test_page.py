"""The page of a run: whole, self-contained, and safe whatever files are called."""

from __future__ import annotations

import base64
import io
import json
import struct
import zipfile
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from zonocuda.cli.main import main
from zonocuda.fleet.charts import Curve, cactus_plot, margin_classes, tree_plot
from zonocuda.fleet.courses import course_of, course_plot
from zonocuda.fleet.layers import layer_groups
from zonocuda.fleet.page import headline, page
from zonocuda.fleet.pictures import counterexample_images, document_of, image_layout, trees_of
from zonocuda.fleet.record import Record

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'&.onnx"


def record(verdict: str = "verified", **more: object) -> Record:
    one = Record("key", "name", "net.onnx", "p.vnnlib", "", "", 60.0, {}, verdict, "a reason", seconds=0.5)
    return replace(one, **more)  # type: ignore[arg-type]


class Checked(HTMLParser):
    """Every tag is closed in its turn; which tags, ids and texts there are."""

    VOID = frozenset({"meta", "input", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.stack: list[str] = []
        self.feed(text)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def named(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def test_the_page_is_well_formed_and_asks_no_network(tmp_path: Path) -> None:
    records = [record(), record("falsified", margin=-0.25), record("error", reason="no"), record("timeout", spec="q")]
    parsed = Checked(page(tmp_path, records))
    assert len(parsed.named("tr")) == 5
    assert len(parsed.named("script")) == 1
    assert not parsed.named("link")
    for _, attributes in parsed.tags:
        assert not {"src", "href", "action"} & attributes.keys()
    assert "http:" not in page(tmp_path, records)
    assert "https:" not in page(tmp_path, records)
    (policy,) = (a["content"] for a in parsed.named("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    cells = [a["data-value"] for a in parsed.named("td")]
    assert cells[:6] == ["verified", "net.onnx", "p.vnnlib", "0.5", "", "a reason"]


def test_names_and_reasons_are_text_whatever_they_hold(tmp_path: Path) -> None:
    hostile = record("falsified", net=HOSTILE, spec=HOSTILE, reason=HOSTILE, lost=[HOSTILE], phases={HOSTILE: 1.0})
    split = {"boxes": HOSTILE, "depth": 3, "split": "input"}
    folder = tmp_path / HOSTILE.replace("/", "")
    folder.mkdir()
    text = page(folder, [replace(hostile, splits=[split])])
    parsed = Checked(text)
    assert len(parsed.named("script")) == 1
    assert not parsed.named("img")
    assert all(not name.startswith("on") for _, attributes in parsed.tags for name in attributes)
    assert HOSTILE in parsed.texts
    assert HOSTILE in [a["data-value"] for a in parsed.named("td")]


def test_the_headline_counts() -> None:
    records = [record()] * 1200 + [record("falsified")] * 2 + [record("timeout"), record("unknown"), record("error")]
    assert headline(records) == (
        "Of 1,205 instances 1,200 are verified, 2 are falsified by a counterexample, and 2 are open; 1 could not be "
        "run. All took 602 seconds of verification together."
    )


def test_charts_are_left_out_where_there_is_nothing_to_draw(tmp_path: Path) -> None:
    assert "<svg" not in page(tmp_path, [record("error", seconds=0.0)])
    assert "<svg" not in page(tmp_path, [])
    drawn = page(tmp_path, [record(phases={"forward": 1.0}, margin=0.5)])
    assert drawn.count("<svg") == 3


def layers(*unstable: object, neurons: int = 4) -> str:
    """A document of layers of so many unstable neurons."""
    entries = [{"name": f"r{i}", "neurons": neurons, "unstable": count} for i, count in enumerate(unstable)]
    return json.dumps({"layers": entries})


def test_unstable_neurons_are_averaged_over_networks_with_the_same_layers(tmp_path: Path) -> None:
    contents = [layers(1, 2), layers(3, 0), layers(4, neurons=10), layers(5, 1), layers(-1, 1), layers("1"), "[]", ""]
    for i, content in enumerate(contents):
        (tmp_path / f"{i}.json").write_text(content)
    records = [record(net=f"n{i}.onnx", files={"result": f"{i}.json"}) for i in range(len(contents))]
    two, one = layer_groups(tmp_path, records)
    assert (two.instances, two.title) == (2, "n0.onnx, n1.onnx")
    assert [(layer.name, layer.neurons, layer.share) for layer in two.layers] == [("r0", 4, 0.5), ("r1", 4, 0.25)]
    assert (one.instances, one.layers[0].share) == (1, 0.4), "more unstable neurons than neurons are no layer"
    texts = set(Checked(page(tmp_path, records)).texts)
    assert {"Unstable neurons by layer", "n0.onnx, n1.onnx", "50 % of 4", "25 % of 4", "40 % of 10"} <= texts


def test_a_cactus_plot_has_a_point_for_each_decided_instance() -> None:
    parsed = Checked(cactus_plot([Curve("", [0.01, 0.1, 10.0])], 4))
    (curve,) = parsed.named("polyline")
    points = [tuple(map(float, p.split(","))) for p in (curve["points"] or "").split()]
    assert len(points) == 4
    xs, ys = zip(*points, strict=True)
    assert list(np.diff(xs)) == pytest.approx([xs[1] - xs[0]] * 3, abs=0.11)
    assert ys[1] - ys[2] == pytest.approx((ys[2] - ys[3]) / 2, abs=0.11), "decades of seconds are equally high"
    assert {"instances decided", "seconds"} <= set(parsed.texts)


def test_two_curves_of_a_cactus_plot_have_one_axis_and_their_names() -> None:
    parsed = Checked(cactus_plot([Curve("slow", [1.0, 10.0]), Curve("quick", [0.1])], 2))
    slow, quick = parsed.named("polyline")
    assert (slow["class"], quick["class"]) == ("curve", "curve other")

    def point(curve: dict[str, str | None], number: int) -> tuple[float, float]:
        x, y = (curve["points"] or "").split()[number].split(",")
        return float(x), float(y)

    (x, one), (far, ten), (near, tenth) = point(slow, 1), point(slow, 2), point(quick, 1)
    assert near == x, "each has its first instance there"
    assert far > x
    assert tenth - one == pytest.approx(one - ten, abs=0.11), "decades of both are equally high"
    assert {"slow", "quick"} <= set(parsed.texts)
    assert "slow: 2 of 2 instances are decided, half of these within 1 s each, the last in 10 s." in parsed.texts[-1]
    assert "quick: 1 of 2 instances are decided" in parsed.texts[-1]
    (only,) = Checked(cactus_plot([Curve("none", []), Curve("some", [2.0])], 3)).named("polyline")
    assert only["class"] == "curve other"
    assert "none: 0 of 3 instances are decided." in cactus_plot([Curve("none", []), Curve("some", [2.0])], 3)
    assert cactus_plot([Curve("a", []), Curve("b", [])], 3) == ""


def test_margins_are_counted_by_decade() -> None:
    classes = margin_classes([-20.0, -0.5, -0.2, 0.0, 1e-9, 0.5, 3.0, 3.5, float("inf")])
    assert classes == {
        "-100 to -10": 1,
        "-1 to -0.1": 2,
        "-1e-05 to 0": 1,
        "below 1e-05": 1,
        "0.1 to 1": 1,
        "1 to 10": 2,
    }


def test_a_tree_is_drawn_with_each_node_as_wide_as_its_leaves() -> None:
    parsed = Checked(tree_plot([1, 0, 1, 0, 0], 1))
    widths = [float(a["width"] or 0) for a in parsed.named("rect")]
    third = (640 - 2) / 3
    assert widths == pytest.approx([3 * third, third, 2 * third, third, third], abs=0.5)
    assert [a["class"] for a in parsed.named("rect")] == ["node", "node leaf", "node", "node leaf", "node leaf"]
    assert "3 leaves, at most 2 splits above one" in parsed.texts[-1]
    for kinds, trees in (([0], 1), ([1, 0], 1), ([1, 0, 0, 0], 1), ([1, 0, 0], 2), ([], 0), ([0] * 5000, 5000)):
        assert tree_plot(kinds, trees) == ""
    assert tree_plot([0, 1, 0, 0], 2), "two trees side by side"


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ([1, 28, 28], (28, 28, 1, True)),
        ([3, 32, 24], (32, 24, 3, True)),
        ([32, 24, 3], (32, 24, 3, False)),
        ([28, 28, 1], (28, 28, 1, True)),
        ([784], (28, 28, 1, True)),
        ([3072], (32, 32, 3, True)),
        ([1, 784, 1], (28, 28, 1, True)),
        ([5], None),
        ([100], None),
        ([2, 28, 28], None),
        ([4, 4], None),
        ([3, 4, 4], None),
        ([], None),
    ],
)
def test_shapes_that_look_like_images(shape: list[int], layout: object) -> None:
    assert image_layout(shape) == layout


def pixels(uri: str) -> np.ndarray:
    """The values of a PNG, ``[height, width, channels]``, read by the standard's own rules."""
    content = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, at = {}, 8
    while at < len(content):
        (size,) = struct.unpack(">I", content[at : at + 4])
        kind, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + size]
        assert struct.unpack(">I", content[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + data)
        chunks[kind], at = data, at + 12 + size
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, rest) == (8, [0, 0, 0])
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, {0: 1, 2: 3}[colour])


def image_document(shape: list[int], first: bool) -> dict[str, object]:
    generator = np.random.default_rng(0)
    middle = generator.integers(20, 230, shape) / 255
    x = middle + 0.02
    return {
        "input": {"shape": shape, "lower": (middle - 0.04).ravel().tolist(), "upper": (middle + 0.04).ravel().tolist()},
        "counterexample": {"x": x.ravel().tolist()},
        "first": first,
    }


@pytest.mark.parametrize(("shape", "first"), [([3, 8, 9], True), ([8, 9, 3], False)])
def test_images_show_the_middle_of_the_box_and_the_counterexample(shape: list[int], first: bool) -> None:
    document = image_document(shape, first)
    (_, middle), (_, found), (caption, difference) = counterexample_images(document)
    x = np.array(document["counterexample"]["x"]).reshape(shape)  # type: ignore[index]
    expected = np.round(255 * (np.moveaxis(x, 0, -1) if first else x))
    assert (pixels(found) == expected).all()
    assert (np.abs(pixels(middle) - (expected - 0.02 * 255)) <= 1).all()
    assert (pixels(difference) >= 254).all(), "everywhere as bright as it gets"
    assert caption == "difference, at most 0.02"


@pytest.mark.parametrize(
    "change",
    [
        {"counterexample": None},
        {"counterexample": {"x": [1.0]}},
        {"counterexample": {"x": "text"}},
        {"input": {"shape": [3, 8, 9]}},
        {"input": {"shape": [-1, 8, 9], "lower": [], "upper": []}},
        {"input": None},
    ],
)
def test_a_document_that_is_not_as_it_should_be_has_no_images(change: dict[str, object]) -> None:
    assert counterexample_images({**image_document([3, 8, 9], True), **change}) == []


def test_files_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (tmp_path / "secret.json").write_text('{"secret": 1}')
    (folder / "link.json").symlink_to(tmp_path / "secret.json")
    (folder / "own.json").write_text('{"own": 1}')
    for name in ("../secret.json", str(tmp_path / "secret.json"), "link.json", "absent", "", "\0", "a" * 5000):
        assert document_of(folder, record(files={"result": name})) == {}
    assert document_of(folder, record(files={"result": "own.json"})) == {"own": 1}
    (folder / "own.json").write_text("[" * 100_000)
    assert document_of(folder, record(files={"result": "own.json"})) == {}


def test_a_certificate_that_is_none_has_no_tree(tmp_path: Path) -> None:
    proof = record(files={"certificate": "c.zip"})
    (tmp_path / "c.zip").write_bytes(b"no zip")
    assert trees_of(tmp_path, proof) == []
    for regions in ([], [{"forest": {"kind": {"file": "absent"}}}], 3, [{"region": 0, "forest": None}]):
        with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
            archive.writestr("certificate.json", json.dumps({"certificate": {"regions": regions}}))
        assert trees_of(tmp_path, proof) == []
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        array = io.BytesIO()
        np.save(array, np.array([object()]), allow_pickle=True)
        forest = {"kind": {"file": "kind.npy"}, "lemma_relus": {"file": "kind.npy"}}
        document = {"certificate": {"regions": [{"region": 0, "forest": forest, "trees": [[0]]}]}}
        archive.writestr("certificate.json", json.dumps(document))
        archive.writestr("kind.npy", array.getvalue())
    assert trees_of(tmp_path, proof) == [], "no pickle is read"


def test_the_command_writes_the_page_of_a_run(
    ran: tuple[Path, object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, _ = ran
    assert main(["report", str(out), "--html", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out == f"5 instances in {tmp_path / 'page.html'}\n"
    parsed = Checked((tmp_path / "page.html").read_text())
    assert len(parsed.named("tr")) == 6
    assert "Of 5 instances 1 are verified, 1 are falsified" in " ".join(parsed.texts)
    assert "Unstable neurons by layer" in parsed.texts
    assert main(["report", str(out)]) == 0
    assert (out / "report.html").is_file()


# ---- the margin against time -----------------------------------------------------------------------------------------


def history(*moments: tuple[object, object, object]) -> dict[str, object]:
    return {"history": [{"seconds": s, "margin": m, "open": n} for s, m, n in moments]}


def test_a_margin_is_drawn_against_time_in_steps(tmp_path: Path) -> None:
    course = course_of(history((0.0, "-inf", 1), (1.0, -100.0, 1), (2.0, -10.0, 7), (4.0, -1.0, 3), (4.0, "inf", 0)))
    assert course == [(1.0, -100.0, 1), (2.0, -10.0, 7), (4.0, -1.0, 3)]
    drawing = course_plot(course)
    (points,) = [dict(attrs)["points"] for tag, attrs in Checked(drawing).tags if tag == "polyline"]
    places = [tuple(map(float, pair.split(","))) for pair in points.split()]
    assert [x for x, _ in places] == [204.0, 344.0, 344.0, 624.0, 624.0], "an axis of 560 for 4 s, from 64 on"
    assert [y for _, y in places] == [216.0, 216.0, 114.0, 114.0, 12.0], "a power of ten is half of 204, zero above"
    assert "from -100 to -1 after 4 s; at most 7 parts were open at a time" in drawing
    document = tmp_path / "result.json"
    document.write_text(json.dumps(history((0.0, -3.0, 1), (1.0, -2.0, 2), (2.0, -1.0, 2))))
    whole = page(tmp_path, [record("timeout", files={"result": "result.json"})])
    assert whole.count("margin against seconds") == 1
    assert "net.onnx, p.vnnlib: timeout" in whole


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"history": 3},
        {"history": [3]},
        history((2.0, -1.0, 1), (1.0, -1.0, 1), (3.0, -1.0, 1)),
        history(*[(float(i), -1.0, 1) for i in range(2000)]),
        history((1.0, True, 1), (2.0, float("nan"), 1), (3.0, -1.0, True)),
        history((0.0, -1.0, 1), (0.0, -1.0, 1), (0.0, -1.0, 1)),
        history((0.0, 0.0, 1), (1.0, 0.0, 1), (2.0, 0.0, 1)),
    ],
)
def test_a_history_that_is_not_as_it_should_be_is_not_drawn(document: dict[str, object]) -> None:
    assert course_plot(course_of(document)) == ""

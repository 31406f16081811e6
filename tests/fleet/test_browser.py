"""The page of a run in a real browser: sorted, filtered, opened. Skipped without playwright and Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.fleet.test_page import HOSTILE, history, image_document, record
from zonocuda import nonsmooth
from zonocuda.fleet.compare import Result, paired
from zonocuda.fleet.compare_page import comparison_page
from zonocuda.fleet.page import page
from zonocuda.verifier.documents import json_text

CHROMIUM = os.environ.get("ZONOCUDA_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome") or ""
playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason="no Chromium: CONTRIBUTING.md")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    records = [
        record("verified", spec="p10.vnnlib", seconds=2.0, margin=0.5),
        record("verified", spec="p9.vnnlib", seconds=10.0, margin=float("-inf")),
        record("unknown", spec=HOSTILE, seconds=0.5),
        record("falsified", spec="p8.vnnlib", seconds=1.0, margin=-3.0, files={"result": "found.json"}),
    ]
    course = history((0.0, -3.0, 1), (1.0, -2.0, 20_000), (2.0, -1.0, 2))
    (tmp_path / "found.json").write_text(json_text({**image_document([3, 8, 9], True), **course}))
    (tmp_path / "page.html").write_text(page(tmp_path, records))
    return tmp_path / "page.html"


def opened(browser: Any, path: Path, width: int = 1200, **more: Any) -> tuple[Any, list[str]]:
    """The page, and what it logs or asks of a network."""
    faults: list[str] = []
    shown = browser.new_page(viewport={"width": width, "height": 800}, **more)
    shown.on("console", lambda message: faults.append(message.text))
    shown.on("pageerror", lambda error: faults.append(str(error)))
    shown.on("dialog", lambda dialog: faults.append(dialog.message))
    shown.on("request", lambda request: faults.extend([request.url] * (not request.url.startswith(("file:", "data:")))))
    shown.goto(path.as_uri())
    return shown, faults


def column(shown: Any, number: int) -> list[str]:
    cells = shown.locator(f"#instances tbody tr:visible td:nth-child({number})")
    return list(cells.all_inner_texts())


def test_columns_are_sorted_as_numbers_and_as_text(browser: Any, path: Path) -> None:
    shown, faults = opened(browser, path)
    head = shown.get_by_role("button", name="seconds")
    head.click()
    assert column(shown, 4) == ["0.500", "1.000", "2.000", "10.000"]
    head.click()
    assert column(shown, 4) == ["10.000", "2.000", "1.000", "0.500"]
    margin = shown.get_by_role("button", name="margin")
    margin.click()
    assert column(shown, 5) == ["-inf", "-3", "0.5", ""], "what has none comes last"
    margin.click()
    assert column(shown, 5) == ["0.5", "-3", "-inf", ""]
    shown.get_by_role("button", name="property").click()
    assert column(shown, 3) == [HOSTILE, "p8.vnnlib", "p9.vnnlib", "p10.vnnlib"]
    assert faults == []


def test_rows_are_filtered_by_text_and_by_verdict(browser: Any, path: Path) -> None:
    shown, faults = opened(browser, path)
    assert shown.locator("#count").inner_text() == "4 shown"
    shown.get_by_label("Text").fill("P9")
    assert column(shown, 3) == ["p9.vnnlib"]
    shown.get_by_label("Text").fill("")
    shown.get_by_label("Verdict").select_option("falsified")
    assert column(shown, 3) == ["p8.vnnlib"]
    assert shown.locator("#count").inner_text() == "1 shown"
    assert faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_an_audit_fits_a_small_window(browser: Any, tmp_path: Path, scheme: str) -> None:
    class WithAVeryLongNameThatHasNoPlaceToBreakItIntoTwoLines(nn.Sequential):
        pass

    model = WithAVeryLongNameThatHasNoPlaceToBreakItIntoTwoLines(nn.Linear(2, 400), nn.ReLU())
    for values in model.parameters():
        nn.init.zeros_(values)
    dtypes = torch.float32, torch.bfloat16
    report = nonsmooth.audit(model, torch.ones(8, 2), lambda y: y.sum(), dtypes=dtypes, progress=False)
    (tmp_path / "audit.html").write_text(nonsmooth.html_page(report))
    for width in (360, 500):
        shown, faults = opened(browser, tmp_path / "audit.html", width, color_scheme=scheme)
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        assert shown.locator("svg").count() == 2
        assert shown.locator("td.bifurcation").first.is_visible()
        assert faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 500, 1600])
def test_the_page_fits_and_shows_its_images(browser: Any, path: Path, width: int, scheme: str) -> None:
    shown, faults = opened(browser, path, width, color_scheme=scheme)
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    colours = shown.evaluate("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]")
    dark = int(colours[0].split("(")[1].split(",")[0]) > int(colours[1].split("(")[1].split(",")[0])
    assert dark == (scheme == "dark")
    images = shown.locator("img")
    assert images.count() == 3
    assert shown.evaluate("[...document.images].every(image => image.complete && image.naturalWidth === 9)")
    assert images.first.is_visible()
    shown.locator("summary").click()
    assert not images.first.is_visible()
    shown.locator("summary").click()
    assert images.first.is_visible(), "it is opened again"
    assert faults == []


def test_a_counterexample_that_is_closed_at_first_is_opened(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "found.json").write_text(json_text(image_document([3, 8, 9], True)))
    records = [record("falsified", spec=f"p{i}.vnnlib", files={"result": "found.json"}) for i in range(2)]
    (tmp_path / "page.html").write_text(page(tmp_path, records))
    shown, faults = opened(browser, tmp_path / "page.html")
    assert [shown.locator("img").nth(i).is_visible() for i in (0, 3)] == [True, False]
    shown.get_by_text("net.onnx, p1.vnnlib").click()
    assert shown.locator("img").nth(3).is_visible()
    assert faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 500, 1600])
def test_a_comparison_fits_is_sorted_and_filtered(browser: Any, tmp_path: Path, width: int, scheme: str) -> None:
    said = [("p10", "verified", "falsified"), ("p9", "verified", "unknown"), (HOSTILE, "unknown", "unknown")]
    first, second = (
        [Result("net.onnx", row[0], row[side], 10.0 * side + place) for place, row in enumerate(said, 1)]
        for side in (1, 2)
    )
    names = "results/of/a/long/path/without/any/place/to/break/" * 3, "other"
    (tmp_path / "page.html").write_text(comparison_page(names, paired(first, second[:2])))
    shown, faults = opened(browser, tmp_path / "page.html", width, color_scheme=scheme)
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    assert shown.locator("polyline").count() == 2
    strokes = shown.evaluate("[...document.querySelectorAll('polyline')].map(line => getComputedStyle(line).stroke)")
    assert len(set(strokes)) == 2, "told apart"
    assert column(shown, 1) == ["contradiction", "decided by one", "only in one"]
    shown.get_by_role("button", name="property").click()
    assert column(shown, 3) == [HOSTILE, "p9", "p10"]
    shown.get_by_role("button", name="seconds, second").click()
    assert column(shown, 7) == ["21.000", "22.000", ""]
    shown.get_by_label("Difference").select_option("only in one")
    assert column(shown, 3) == [HOSTILE]
    assert faults == []

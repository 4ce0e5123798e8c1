"""Pages of --report in a real browser: quiet, whole, and with the numbers of the JSON under the cursor."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import CHROMIUM, Browser, Page, browser
from shell import Run, document, runner

import rnnctl
from rnnctl.view.numbers import number

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on PATH (Debian: apt-get install chromium)"),
]
FIELD = "document.querySelector('.field')"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    return runner(capsys, monkeypatch, tmp_path)


def trained(folder: Path) -> None:
    """What a training run of sequences of two lengths left; its steps are not 0, 1, 2."""
    torch.manual_seed(0)
    model = torch.nn.RNN(2, 3, batch_first=True)
    with rnnctl.watch(model, every=2, to=folder / "run.jsonl"):
        for length in (5, 5, 9, 9, 7):
            model(torch.randn(1, length, 2))[0][:, -1].square().sum().backward()


LINES = {
    "flow": "flow --seq-len 24",
    "history": "gradnorm --from run.jsonl",
    "gradnorm": "gradnorm --seq-len 50",
    "lyapunov": "lyapunov --seq-len 60 --count 4",
}


def opened(name: str, width: int, chromium: Browser, run: Run, folder: Path, **more: Any) -> Page:
    trained(folder)
    assert run(f"{LINES[name]} --report page.html").code == 0
    return chromium.page(folder / "page.html", width, **more)


@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize("name", LINES)
def test_a_page_is_quiet_and_fits_into_its_window(name, width, chromium, run, tmp_path):
    page = opened(name, width, chromium, run, tmp_path)
    assert page.complaints() == []
    assert page.value("document.documentElement.scrollWidth") <= width
    # Policy and all: what asks for something is refused, and that is heard here.
    page.value(
        "new Promise((done) => { const i = new Image(); i.onerror = done; i.src = 'https://example.org/a.png'; })"
    )
    assert any("example.org" in each for each in page.complaints())
    page.close()


def values_of(name: str, run: Run) -> dict[tuple[int, int], float | None]:
    """Row and column of the picture -> the value that --json has."""
    key, field = {"flow": ("k", "norm"), "history": ("step", "grad_norm_W_hh")}[name]
    return {(row[key], row["t"]): row[field] for row in document(run(f"{LINES[name]} --json"))["rows"]}


def read_off(said: str) -> tuple[int, int, str]:
    match = re.fullmatch(r"(?:k|step) (\d+), t (\d+): (.+)", said)
    assert match, said
    return int(match[1]), int(match[2]), match[3]


@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize("name", ["flow", "history"])
def test_the_value_under_the_cursor_is_that_of_the_json_to_the_precision_that_it_says(
    name, width, chromium, run, tmp_path
):
    page = opened(name, width, chromium, run, tmp_path)
    expected, seen = values_of(name, run), set()
    size, labels = {"flow": ((24, 24), range(24)), "history": ((3, 9), (0, 2, 4))}[name]
    page.value("document.querySelector('.field').scrollIntoView()")
    box = page.value(f"(({{ x, y, width, height }}) => ({{ x, y, width, height }}))({FIELD}.getBoundingClientRect())")
    left, top, right, foot = box["x"] + 54, box["y"] + 8, box["x"] + box["width"] - 10, box["y"] + box["height"] - 30
    for i in range(12):
        for j in range(8):
            page.point(left + (right - left) * (i + 0.4) / 12, top + (foot - top) * (j + 0.4) / 8)
            row, column, words = read_off(page.value("document.querySelector('.said').textContent"))
            assert column == int((i + 0.4) / 12 * size[1])
            assert row == labels[int((j + 0.4) / 8 * size[0])]
            seen.add((row, column))
            assert_said(words, expected.get((row, column)), (row, column) in expected)
    assert len(seen) > 15 and seen & expected.keys() and seen - expected.keys()
    page.close()


def assert_said(words: str, value: float | None, there: bool) -> None:
    if not there:
        assert words in ("no loss reaches a later step", "beyond the end of the sequence")
    elif value == 0:
        assert words == "0"
    elif words.endswith(" or less"):
        assert value is not None and value <= 1.01 * float(words.removesuffix(" or less"))
    else:
        match = re.fullmatch(r"about (\S+) \(within (\d+) %\)", words)
        assert match and value is not None, words
        assert abs(float(match[1]) / value - 1) <= int(match[2]) / 100 < 0.1


def test_curves_end_where_the_scale_ends_and_say_so(chromium, run, tmp_path):
    # It falls by a tenth a step, the scale by twelve in all.
    line = "flow --seq-len 60 --nonlinearity linear --init orthogonal --gain 0.1 --dtype float64"
    assert run(f"{line} --report page.html").code == 0
    page = chromium.page(tmp_path / "page.html", 1200)
    titles = page.value("[...document.querySelectorAll('.side h4')].map((each) => each.textContent)")
    assert all(re.search(r"\(not drawn where it is [\d.e-]+ or less\)$", each) for each in titles)
    # Columns of the canvas in which there is anything blue.
    drawn = """[...document.querySelectorAll('.side canvas')].map((each) => {
        const { width, height } = each;
        const { data } = each.getContext('2d').getImageData(0, 0, width, height);
        const columns = new Set();
        for (let i = 0; i < data.length; i += 4) {
            if (data[i + 3] > 100 && data[i + 2] - data[i] > 80) columns.add((i / 4) % width);
        }
        return columns.size / width;
    })"""
    assert all(0.05 < share < 0.3 for share in page.value(drawn))
    assert page.complaints() == []
    page.close()


def test_the_keys_move_the_crosshair_zoom_and_show_all(chromium, run, tmp_path):
    page = opened("flow", 1200, chromium, run, tmp_path)
    said = "document.querySelector('.said').textContent"
    assert read_off(page.value(said))[:2] == (23, 12)
    page.value("document.querySelector('.field').focus()")
    for key in ("ArrowUp", "ArrowUp", "ArrowLeft"):
        page.press(key)
    assert read_off(page.value(said))[:2] == (21, 11)
    before = page.value("document.querySelector('.field').toDataURL()")
    page.press("+")
    zoomed = page.value("document.querySelector('.field').toDataURL()")
    page.press("0")
    assert zoomed != before == page.value("document.querySelector('.field').toDataURL()")
    for _ in range(40):
        page.press("ArrowLeft")
    assert read_off(page.value(said))[:2] == (21, 0)
    # Every control is one that Tab comes to, and has a name.
    page.until("[...document.querySelectorAll('.tools button')].every((each) => each.getAttribute('aria-label'))")
    assert page.complaints() == []
    page.close()


def test_the_address_opens_the_page_at_a_cell_and_a_click_puts_it_there(chromium, run, tmp_path):
    page = opened("history", 1200, chromium, run, tmp_path)
    page.value("location.hash = '#step=2&t=6'")
    page.until("document.querySelector('.said').textContent.startsWith('step 2, t 6: about ')")
    # A step that was not probed is none.
    page.value("location.hash = '#step=1&t=3'")
    page.until("document.querySelector('.said').textContent.startsWith('step 2, t 3: ')")
    page.value("document.querySelector('.field').scrollIntoView()")
    box = page.value("(({ x, y }) => ({ x, y }))(document.querySelector('.field').getBoundingClientRect())")
    for kind in ("mousePressed", "mouseReleased"):
        page.point(box["x"] + 60, box["y"] + 12, kind, button="left", clickCount=1)
    assert page.value("location.hash") == "#step=0&t=0"
    page.close()


def test_without_a_script_the_picture_is_there_and_nothing_that_would_need_one(chromium, run, tmp_path):
    page = opened("flow", 1200, chromium, run, tmp_path, script=False)
    shown = "(name) => [...document.querySelectorAll(name)].filter((each) => each.getClientRects().length).length"
    assert page.value(f"({shown})('img.static')") == 1
    assert page.value(f"({shown})('button')") == 0
    assert page.value("document.querySelector('img.static').naturalWidth") == 24
    page.close()


def test_on_paper_the_still_picture_stands_in_place_of_the_one_to_explore(chromium, run, tmp_path):
    page = opened("flow", 1200, chromium, run, tmp_path, print_=True)
    assert page.value("getComputedStyle(document.querySelector('.explorer')).display") == "none"
    assert page.value("getComputedStyle(document.querySelector('img.static')).display") == "block"
    page.close()


def brightness(page: Page, of: str) -> float:
    red, green, blue = map(int, re.findall(r"\d+", page.value(f"getComputedStyle(document.body).{of}"))[:3])
    return (red + green + blue) / 765


def test_the_page_is_as_light_or_dark_as_its_reader_wants_it(chromium, run, tmp_path):
    light = opened("gradnorm", 1200, chromium, run, tmp_path)
    dark = chromium.page(tmp_path / "page.html", 1200, dark=True)
    assert brightness(light, "backgroundColor") > 0.9 > 0.2 > brightness(light, "color")
    assert brightness(dark, "backgroundColor") < 0.2 < 0.8 < brightness(dark, "color")
    light.close()
    dark.close()


def test_buttons_copy_the_command_and_the_json(chromium, run, tmp_path):
    page = opened("gradnorm", 1200, chromium, run, tmp_path)
    page.value("navigator.clipboard.writeText = async (text) => { window.copied = text; }; true")
    click = "[...document.querySelectorAll('#made button')]"
    assert page.value(f"{click}.every((each) => each.checkVisibility())")
    page.value(f"{click}[0].click()")
    page.until("window.copied === 'rnnctl gradnorm --seq-len 50'")
    page.value(f"{click}.at(-1).click()")
    page.until("window.copied.startsWith('{')")
    assert json.loads(page.value("window.copied")) == document(run("gradnorm --seq-len 50 --json"))
    page.close()


def test_the_scalars_and_rows_that_are_read_are_those_of_the_json(chromium, run, tmp_path):
    page = opened("gradnorm", 400, chromium, run, tmp_path)
    found = document(run("gradnorm --seq-len 50 --json"))
    texts = "(name) => [...document.querySelectorAll(name)].map((row) => [...row.cells].map((cell) => cell.innerText))"
    scalars, rows = (page.value(f"({texts})('{name}')") for name in (".scalars tr", ".scroll tbody tr"))
    assert len(scalars) > 8
    for name, value, *_ in scalars:
        assert value == ("undefined" if found["scalars"][name] is None else number(found["scalars"][name]))
    cut = [*found["rows"][:20], *found["rows"][-20:]]
    assert [[row[0], row[1], row[3]] for row in rows if row[0] != "..."] == [
        [number(each[name]) for name in ("t", "grad_norm_W_hh", "grad_norm_h")] for each in cut
    ]
    page.close()

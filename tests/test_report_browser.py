"""The report in a real browser: offline, without an error, on a phone and in the dark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lrsearch.report.html import breakable
from lrsearch.report.page import page
from lrsearch.report.report import make_report
from lrsearch.storage import open_storage
from tests.browser import Browser, find_chromium
from tests.synthetic import make_study

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium: install chromium, or set LRSEARCH_CHROMIUM"
)
READY = "document.documentElement.dataset.ready === 'yes'"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    storage = open_storage(f"sqlite:///{folder}/lrsearch.db")
    path = folder / "report.html"
    study = make_study(150, storage=storage, failed=2)
    path.write_text(page(make_report(study)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as one:
        yield one


@pytest.fixture
def opened(browser: Browser, report: Path) -> Browser:
    browser.errors.clear()
    browser.requests.clear()
    browser.resize(1280, 900)
    browser.scheme(dark=False)
    browser.open(report, READY)
    return browser


def test_it_opens_without_network_and_without_a_console_error(opened: Browser) -> None:
    assert opened.errors == []
    assert opened.requests == []


def test_every_figure_is_drawn(opened: Browser) -> None:
    places = opened.run("document.querySelectorAll('script[data-plot]').length")
    assert places >= 8
    assert opened.run(
        "document.querySelectorAll('.plot[data-drawn=yes] svg.main-svg').length"
    ) >= (places)
    empty = opened.run(
        "Array.from(document.querySelectorAll('.plot')).filter(p => "
        "p.querySelectorAll('.trace, .bars, .points path').length === 0).map(p => p.id)"
    )
    assert empty == []


def test_a_click_sorts_the_table_and_another_turns_it_round(opened: Browser) -> None:
    read = "Array.from(document.querySelectorAll('.trials tbody tr:not([aria-hidden]) td:first-child')).map(c => +c.textContent)"  # noqa: E501
    opened.run("document.querySelector('[data-sort=number]').click()")
    assert opened.run(read)[:5] == [0, 1, 2, 3, 4]
    opened.run("document.querySelector('[data-sort=number]').click()")
    assert opened.run(read)[:3] == [149, 148, 147]
    sort = "document.querySelector('[data-sort=number]').parentElement.getAttribute('aria-sort')"
    assert opened.run(sort) == "descending"


def test_the_filter_keeps_the_rows_that_match(opened: Browser) -> None:
    opened.run(
        "(() => { const f = document.getElementById('filter'); f.value = 'steplr pruned';"
        "f.dispatchEvent(new Event('input')); })()"
    )
    families = opened.run(
        "Array.from(document.querySelectorAll('.trials tbody tr:not([aria-hidden])'))"
        ".map(r => r.cells[1].textContent + ' ' + r.cells[3].textContent)"
    )
    assert families
    assert {text.replace("MultiStepLR", "StepLR") for text in families} == {"StepLR pruned"}


def test_the_table_of_a_small_study_is_as_high_as_its_rows(
    browser: Browser, tmp_path: Path
) -> None:
    path = tmp_path / "one.html"
    path.write_text(page(make_report(make_study(1))), encoding="utf-8")
    browser.resize(1280, 900)
    browser.open(path, READY)
    assert browser.run("document.getElementById('shown').textContent") == "1 trial"
    assert 60 < browser.run("document.getElementById('grid').clientHeight") < 120


def test_only_the_rows_in_view_exist(opened: Browser) -> None:
    assert opened.run("document.querySelectorAll('.trials tbody tr').length") < 60
    opened.run("document.getElementById('grid').scrollTop = 1e6")
    opened.wait(
        "Array.from(document.querySelectorAll('.trials tbody tr:not([aria-hidden])')).length > 5"
        " && document.getElementById('grid').scrollTop > 1000"
    )
    assert opened.errors == []


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_nothing_is_wider_than_the_screen(
    browser: Browser, report: Path, dark: bool
) -> None:
    browser.errors.clear()
    browser.resize(390, 844)
    browser.scheme(dark)
    browser.open(report, READY)
    assert browser.run("document.documentElement.scrollWidth") == 390
    assert browser.errors == []


def test_panels_side_by_side_stand_one_below_the_other_on_a_phone(opened: Browser) -> None:
    boxes = "[...document.querySelectorAll('#overview .bglayer .bg')].map(b => b.getBBox().{})"
    tops, lefts = (opened.run(boxes.replace("{}", at)) for at in ("y", "x"))
    assert tops[0] == tops[1]
    assert lefts[0] < lefts[1]
    opened.resize(390, 844)
    opened.wait(f"{boxes.replace('{}', 'y')}[1] > {tops[0] + 100}")
    lefts = opened.run(boxes.replace("{}", "x"))
    assert lefts[0] == lefts[1]
    opened.resize(1280, 900)
    opened.wait(f"{boxes.replace('{}', 'y')}[1] === {tops[0]}")


def test_the_printed_page_has_every_trial(opened: Browser) -> None:
    rows = "document.querySelectorAll('.trials tbody tr[class]').length"
    assert opened.run(rows) < 150
    opened.run("window.dispatchEvent(new Event('beforeprint'))")
    assert opened.run(rows) == 150
    opened.run("window.dispatchEvent(new Event('afterprint'))")
    assert opened.run(rows) < 150


def test_on_paper_a_dark_page_is_light_and_its_bars_and_keys_have_their_colours(
    opened: Browser,
) -> None:
    words = "document.getElementById('scatter').layout.font.color"
    light = opened.run(words)
    opened.scheme(dark=True)
    opened.wait(f"{words} !== '{light}'")
    dark = opened.run(words)
    opened.run("window.dispatchEvent(new Event('beforeprint'))")
    assert opened.run(words) == light
    opened.call("Emulation.setEmulatedMedia", media="print")
    adjust = "getComputedStyle(document.querySelector('{}')).printColorAdjust"
    for place in (".key i", "td.bar i"):
        assert opened.run(adjust.replace("{}", place)) == "exact"
    opened.call("Emulation.setEmulatedMedia", media="")
    opened.scheme(dark=True)
    opened.run("window.dispatchEvent(new Event('afterprint'))")
    assert opened.run(words) == dark


@pytest.mark.parametrize("width", [340, 1100])
def test_the_longest_name_stays_within_its_column(opened: Browser, width: int) -> None:
    opened.resize(width, 900)
    assert "<wbr>" in breakable("<strong>CosineAnnealingWarmRestarts</strong>")
    for name in ("CosineAnnealingWarmRestarts", "x" * 80):
        heading = json.dumps(breakable(f"Train with <strong>{name}</strong> at a rate of 0.3"))
        opened.run(f"document.querySelector('.hero h1').innerHTML = {heading}")
        assert opened.run("document.querySelector('.hero strong').textContent") == name
        edges = "['.hero h1 strong', '.hero h1'].map(e => document.querySelector(e))"
        inner, outer = opened.run(f"{edges}.map(e => e.getBoundingClientRect().right)")
        assert inner <= outer + 1


def _rgb(text: str) -> list[int]:
    return [int(part) for part in text[text.index("(") + 1 : -1].split(",")[:3]]


def _luminance(text: str) -> float:
    """As in the WCAG."""
    parts = [part / 255 for part in _rgb(text)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
def test_every_word_of_a_figure_stands_out_from_the_page(opened: Browser, dark: bool) -> None:
    opened.scheme(dark)
    ink = "getComputedStyle(document.querySelector('#scatter .xtick text')).fill"
    opened.wait(f"{'!' if dark else ''}{ink}.startsWith('rgb(86')")
    paper = _luminance(opened.run("getComputedStyle(document.body).backgroundColor"))
    texts = "[...document.querySelectorAll('.plot text')].filter(t => t.textContent)"
    words = opened.run(f"{texts}.map(t => [t.textContent, getComputedStyle(t).fill])")
    assert len(words) > 100
    for word, color in words:
        low, high = sorted((paper, _luminance(color)))
        assert (high + 0.05) / (low + 0.05) > 4.5, (word, color)


def test_page_and_figures_follow_dark_mode_without_a_reload(opened: Browser) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('#scatter .xtick text')).fill"
    assert sum(_rgb(opened.run(background))) > 600
    assert sum(_rgb(opened.run(ink))) < 400
    opened.scheme(dark=True)
    opened.wait(f"!{ink}.startsWith('rgb(86')")
    assert sum(_rgb(opened.run(background))) < 120
    assert sum(_rgb(opened.run(ink))) > 450


def test_a_screen_reader_tells_what_each_button_copies(opened: Browser) -> None:
    told = opened.run(
        "[...document.querySelectorAll('[data-copy]')].map(button => document"
        ".getElementById(button.getAttribute('aria-describedby')).textContent)"
    )
    assert told == ["best.yaml", "the same in plain torch", "command"]


def test_copy_puts_the_yaml_where_it_can_be_pasted(opened: Browser) -> None:
    opened.run("document.querySelector('[data-copy=yaml]').click()")
    opened.wait("document.querySelector('[data-copy=yaml]').textContent !== 'copy'")
    assert opened.run("document.getElementById('yaml').textContent").startswith("# study digits")
    assert opened.errors == []


def test_ten_thousand_trials_still_scroll(browser: Browser, tmp_path: Path) -> None:
    from lrsearch.report import sections
    from lrsearch.report.html import document
    from lrsearch.report.tables import load

    table = load(make_study(10_000, epochs=5))
    path = tmp_path / "many.html"
    text = document("many", sections.trials_table(table), scripts=("table.js",))
    path.write_text(text, encoding="utf-8")
    browser.errors.clear()
    browser.resize(1280, 900)
    browser.open(path, "document.querySelectorAll('.trials tbody tr').length > 5")
    milliseconds = browser.run(
        "(() => { const g = document.getElementById('grid'), t = performance.now();"
        "for (let i = 0; i < 50; i += 1) { g.scrollTop += 3000;"
        "g.dispatchEvent(new Event('scroll')); g.getBoundingClientRect(); }"
        "return performance.now() - t; })()"
    )
    assert milliseconds < 2000
    sorting = browser.run(
        "(() => { const t = performance.now();"
        "document.querySelector('[data-sort=lr]').click(); return performance.now() - t; })()"
    )
    assert sorting < 1000
    assert browser.run("document.querySelectorAll('.trials tbody tr').length") < 60
    assert browser.errors == []


def test_a_study_without_a_metric_has_no_column_of_one(browser: Browser, tmp_path: Path) -> None:
    from lrsearch.report import sections
    from lrsearch.report.html import document
    from lrsearch.report.tables import load

    table = load(make_study(12))
    without = replace(table, trials=tuple(replace(t, metric=None) for t in table.trials))
    heads = []
    for name, rows in (("with", table), ("without", without)):
        path = tmp_path / f"{name}.html"
        text = document(name, sections.trials_table(rows), scripts=("table.js",))
        path.write_text(text, encoding="utf-8")
        browser.errors.clear()
        browser.open(path, "document.querySelectorAll('.trials tbody tr').length > 5")
        read = "Array.from(document.querySelectorAll('.trials th')).map(c => c.textContent)"
        heads.append(browser.run(read))
        assert browser.errors == []
    assert len(heads[0]) == len(heads[1]) + 1 == 10
    assert heads[0][8] == "metric"


def test_the_comparison_on_fresh_seeds_fits_a_wide_page_and_scrolls_by_key_on_a_narrow_one(
    browser: Browser, tmp_path: Path
) -> None:
    from lrsearch.report.answer_html import confirmed_table
    from lrsearch.report.html import document
    from tests.test_confirmed_words import arm, fake_confirmation

    accuracy = {seed: 0.9 - seed / 10 for seed in range(3)}
    losses = {"#1": [0.1, 0.12, 90.0], "#65": [0.11, 0.12, 0.1], "StepLR": [0.11, 0.15, 0.1]}
    arms = [
        replace(
            arm(key, values, "StepLR" if key == "StepLR" else None),
            schedule={"family": "CosineAnnealingWarmRestarts", "lr": 0.234},
            test_metric=accuracy,
        )
        for key, values in losses.items()
    ]
    table = confirmed_table(fake_confirmation(*arms))
    assert "under −1,000% to" in table
    assert "test accuracy" in table
    path = tmp_path / "seeds.html"
    path.write_text(document("seeds", table), encoding="utf-8")
    more = "(b => b.scrollWidth - b.clientWidth)(document.querySelector('.wide'))"
    browser.resize(1280, 900)
    browser.open(path)
    assert browser.run(more) == 0
    browser.resize(390, 844)
    browser.wait(f"{more} > 100")
    assert browser.run("document.querySelector('.wide').tabIndex") == 0

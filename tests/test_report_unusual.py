"""Reports of unusual studies: losses below 0, no trial that ran to its end, none at all."""

from __future__ import annotations

import re
from pathlib import Path

import optuna

from lrsearch.dashboard import note
from lrsearch.report import words
from lrsearch.report.page import make_report, page
from lrsearch.storage import Storage, open_storage
from tests.synthetic import fakes, make_study


def visible(text: str) -> str:
    """A page without its scripts."""
    return re.sub(r"<script[^>]*>.*?</script>", "", text, flags=re.S)


def below_zero(storage: Storage | None = None) -> optuna.Study:
    """A study whose losses are log-likelihoods: all below 0."""
    made = fakes(60)
    for fake in made:
        fake.losses = fake.losses - 5.0
    return make_study(made=made, storage=storage)


def test_losses_below_zero_are_compared_by_differences_everywhere() -> None:
    report = make_report(below_zero())
    found = report.found
    assert found is not None
    assert found.strongest is not None
    assert found.best.value is not None
    assert found.strongest.value is not None
    assert [g.gain for g in found.gains] == [None] * 4
    assert found.close == ()
    by = words.number(found.strongest.value - found.best.value)
    bodies = visible(page(report))
    assert f"<strong>{by} below</strong> the best usual recipe" in bodies
    assert f"<dd>−{by}</dd>" in bodies
    assert bodies.count(f">−{by}</td>") == 1
    assert not re.search(r"[+−][0-9.]+%", bodies)
    widths = [float(w) for w in re.findall(r'<i style="width:([\d.]+)%', bodies)]
    assert widths[0] == 0
    assert max(widths) == 100
    assert f"−{by} |" in note(report)


def test_an_axis_of_losses_that_are_not_above_zero_is_linear(in_tmp: Path) -> None:
    storage = open_storage("sqlite:///lrsearch.db")
    drawn = make_report(below_zero(storage), storage).figures
    for name in ("scatter", "history", "lines", "paths"):
        assert drawn[name][0].layout.yaxis.type != "log", name
    for name in ("curves", "overview"):
        assert drawn[name][0].layout.yaxis2.type != "log", name
    best = [a for a in drawn["overview"][0].layout.annotations if "<b>" in a.text]
    assert best[0].y < -3
    assert make_report(make_study(60)).figures["curves"][0].layout.yaxis2.type == "log"

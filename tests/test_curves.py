"""Curves drawn without training: the lines, the figure, the file, and the colours of families."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lrsearch.cli import main
from lrsearch.errors import UsageError
from lrsearch.report import curves
from lrsearch.report.curves import (
    curve_lines,
    curves_figure,
    curves_title,
    saved_lines,
    write_curves,
)
from lrsearch.report.style import FAMILY_STYLES, PALETTE, family_style
from lrsearch.schedules import FAMILIES, Schedule


def test_one_line_for_each_combination_labelled_by_what_varies() -> None:
    lines = curve_lines("StepLR", {"gamma": [0.5, 0.65], "step_size": [10, 20]}, 0.1, 60)
    assert [line.label for line in lines] == [
        "gamma 0.5  step_size 10",
        "gamma 0.5  step_size 20",
        "gamma 0.65  step_size 10",
        "gamma 0.65  step_size 20",
    ]
    first = lines[0]
    assert first.x == [float(epoch) for epoch in range(61)]
    assert first.y[:60] == pytest.approx([0.1 * 0.5 ** (epoch // 10) for epoch in range(60)])
    assert first.y[60] == first.y[59]


def test_single_line_is_labelled_by_its_schedule() -> None:
    milestones = {"milestones": [[200, 300, 320, 340]], "gamma": [0.8]}
    (line,) = curve_lines("MultiStepLR", milestones, 0.1, 400)
    assert line.label == "MultiStepLR  [200, 300, 320, 340] gamma 0.8"
    drops = [int(x) for x, a, b in zip(line.x[1:], line.y, line.y[1:], strict=False) if b < a]
    assert drops == [200, 300, 320, 340]


def test_schedule_stepped_within_an_epoch_is_drawn_fine() -> None:
    (line,) = curve_lines("OneCycleLR", {}, 0.1, 30)
    assert not line.steps
    assert len(line.x) == 601
    assert max(line.y) == pytest.approx(0.1, rel=1e-3)
    assert line.x[-1] == 30


def test_several_rates_are_groups_that_follow_the_shape_from_their_own() -> None:
    base, classifier = curve_lines(
        "CosineAnnealingLR", {"eta_min": [0.001]}, [1e-2, 1e-3], 20, warmup=3
    )
    assert (base.label, classifier.label) == ("lr 0.01", "lr 0.001")
    alone = curve_lines("CosineAnnealingLR", {"eta_min": [0.001]}, 1e-2, 20, warmup=3)[0]
    assert base.y == pytest.approx(alone.y, rel=1e-12)
    assert classifier.y == pytest.approx([rate / 10 for rate in base.y], rel=1e-9)


def test_curves_are_written_as_pictures_of_the_same_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []

    def keep(figures: Any, paths: Any, **how: Any) -> None:
        drawn.append(([trace.name for trace in figures[0].data], [str(p) for p in paths]))

    monkeypatch.setattr(curves, "write_pictures", keep)
    path = tmp_path / "c.svg"
    lines = curve_lines("ExponentialLR", {"gamma": [0.9, 0.98]}, 0.1, 9)
    write_curves(lines, path)
    assert drawn == [(["gamma 0.9", "gamma 0.98"], [str(path)])]


def test_options_of_ours_do_not_reach_the_parser_below_kaleido() -> None:
    pytest.importorskip("kaleido")
    code = (
        "import sys; sys.argv = ['lrsearch', 'curves', '--log']\n"
        "from lrsearch.report.pictures import _import_kaleido\n"
        "_import_kaleido(); print(sys.argv)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "['lrsearch', 'curves', '--log']", done.stderr


@pytest.mark.parametrize(
    ("family", "values", "match"),
    [
        ("StepLRR", {}, "did you mean StepLR"),
        ("StepLR", {"gamma": [0.5]}, "StepLR needs step_size"),
        ("StepLR", {"gamma": [], "step_size": [3]}, "0 lines"),
        ("PolynomialLR", {"power": list(range(1, 100))}, "99 lines are not 1 to 60"),
        ("ReduceLROnPlateau", {"factor": [0.5], "patience": [2]}, "has no trace"),
    ],
)
def test_what_cannot_be_drawn_is_refused(family: str, values: Any, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        curve_lines(family, values, 0.1, 30)


def test_figure_holds_every_line_and_leaves_zeros_out_of_a_log_axis() -> None:
    lines = curve_lines("LinearLR", {"end_factor": [0.0, 0.1]}, 0.1, 10, warmup=1)
    zero = lines[0]._replace(y=[*lines[0].y[:-1], 0.0])
    figure = curves_figure([zero, lines[1]], "t", log=True)
    assert [trace.name for trace in figure.data] == ["end_factor 0", "end_factor 0.1"]
    assert list(figure.data[0].y)[-1] is None
    assert figure.layout.yaxis.type == "log"
    assert figure.data[0].line.shape == "hv"
    assert len({trace.line.color for trace in figure.data}) == 2


def test_many_lines_get_different_colours() -> None:
    lines = curve_lines("PolynomialLR", {"power": [0.5 + i / 4 for i in range(20)]}, 0.1, 10)
    assert len({trace.line.color for trace in curves_figure(lines).data}) == 20


def test_file_is_whole_and_needs_no_network(tmp_path: Path) -> None:
    values = {"gamma": [0.98, 0.9]}
    lines = curve_lines("ExponentialLR", values, 0.1, 60)
    title = curves_title("ExponentialLR", values, 0.1)
    path = tmp_path / "c.html"
    write_curves(lines, path, title=title, log=True)
    page = path.read_text()
    assert "gamma 0.98" in page
    assert "ExponentialLR, lr 0.1" in page
    assert not re.search(r"<(script|link|img)\b[^>]*(src|href)=", page)
    assert "Plotly.newPlot" in page


def test_every_family_has_a_style_of_its_own() -> None:
    assert set(FAMILY_STYLES) == set(FAMILIES)
    assert len({(s.color, s.symbol) for s in FAMILY_STYLES.values()}) == len(FAMILY_STYLES)
    assert len({(s.color, s.dash) for s in FAMILY_STYLES.values()}) == len(FAMILY_STYLES)
    assert family_style("MyOwn") == family_style("MyOwn")


# Machado, Oliveira and Fernandes 2009, severity 1.0, for linear RGB
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}


def lab(color: str, vision: Any) -> Any:
    """CIE L*a*b* of a hex colour as seen with ``vision``."""
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(vision @ linear, 0, 1)
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    xyz = to_xyz @ linear / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
def test_hues_are_told_apart_with_any_common_vision(vision: str) -> None:
    for a, b in itertools.combinations(PALETTE, 2):
        distance = np.linalg.norm(lab(a, VISION[vision]) - lab(b, VISION[vision]))
        assert distance > 10, (a, b)  # 2.3 is just noticeable side by side


def test_hues_show_on_white_and_on_dark() -> None:
    for color in PALETTE:
        assert 38 <= lab(color, VISION["normal"])[0] <= 75, color


def test_saved_schedules_are_drawn_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    step = Schedule("StepLR", 0.1, 10, {"step_size": 4, "gamma": 0.5})
    cycle = Schedule("OneCycleLR", 0.2, 20, {"pct_start": 0.3})
    for name, schedule in (("best.yaml", step), ("robust.yaml", cycle)):
        Path(name).write_text(yaml.safe_dump({"schedule": schedule.to_dict()}))
    first, second = saved_lines([Path("best.yaml"), Path("robust.yaml")])
    assert first.label == "best.yaml: StepLR  step_size 4 gamma 0.5  lr 0.1"
    assert first.y[:10] == pytest.approx([0.1] * 4 + [0.05] * 4 + [0.025] * 2)
    assert (second.x[-1], max(second.y)) == (20, pytest.approx(0.2, rel=1e-3))
    assert main(["curves", "best.yaml", "robust.yaml"]) == 0
    assert capsys.readouterr().out == "curves-best-robust.html\n"
    assert "robust.yaml: OneCycleLR" in Path("curves-best-robust.html").read_text()


def test_files_of_one_name_are_told_apart_by_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    files = [Path("best.yaml"), Path("b/best.yaml")]
    for file, steps in zip(files, (3, 4), strict=True):
        file.parent.mkdir(exist_ok=True)
        schedule = Schedule("StepLR", 0.1, 10, {"step_size": steps, "gamma": 0.5})
        file.write_text(yaml.safe_dump({"schedule": schedule.to_dict()}))
    assert [line.label.partition(": ")[0] for line in saved_lines(files)] == list(map(str, files))
    assert main(["curves", *map(str, files)]) == 0
    assert capsys.readouterr().out == "curves-best-b-best.html\n", "not over that of one of them"


@pytest.mark.parametrize("words", [["ExponentialLR", "gamma=0.9"], ["best.yaml"]])
def test_curves_need_no_optuna(words: list[str], tmp_path: Path) -> None:
    schedule = Schedule("StepLR", 0.1, 10, {"step_size": 4, "gamma": 0.5})
    (tmp_path / "best.yaml").write_text(yaml.safe_dump({"schedule": schedule.to_dict()}))
    program = (
        "import sys; from lrsearch.cli import main\n"
        f"assert main({['curves', *words]}) == 0\n"
        "assert 'optuna' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["BEST.YML"], "BEST.YML: cannot be read (No such file or directory)"),
        (["best.yaml"], "best.yaml: cannot be read (No such file or directory)"),
        (["best.yaml", "gamma=0.5"], "curves best.yaml takes more files FILE.yaml, got"),
        (["best.yaml", "--lr", "0.1"], "curves best.yaml: the file says its --lr; leave that"),
        (["StepLR", "robust.yaml"], "a parameter needs KEY=VALUE, got 'robust.yaml'"),
        (["StepLR", "gamma=0.3,,0.5"], "a parameter gamma: '0.3,,0.5' is no plain value"),
        (["ExponentialLR", "gamma=0.9", "-o", "c.pdf"], "must end in .html, .svg or .png"),
    ],
)
def test_files_and_arguments_do_not_mix(
    words: list[str], told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["curves", *words]) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

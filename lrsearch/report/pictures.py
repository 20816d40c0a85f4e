"""Figures as pictures, for papers and slides: PNG and SVG, which need kaleido and a browser."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lrsearch.errors import LrsearchError, UsageError, first_line
from lrsearch.files import make_folder
from lrsearch.report.tables import load

if TYPE_CHECKING:
    import optuna
    from plotly.graph_objects import Figure

    from lrsearch.report.report import Report

NEEDS = (
    "PNG and SVG need kaleido and a Chrome or Chromium: pip install 'lrsearch[png]', and install "
    "chromium (or run plotly_get_chrome); HTML needs neither"
)


def write_png(report: Report, folder: Path) -> list[Path]:
    """Every figure of a report as a PNG of 2400 pixels width.

    Raises:
        LrsearchError: Says what to install where kaleido or a browser is missing.
    """
    make_folder(folder)
    paths = [folder / f"{name}.png" for name in report.figures]
    write_pictures([figure for figure, _ in report.figures.values()], paths)
    return paths


def write_pictures(figures: Sequence[Figure], paths: Sequence[Path], width: int = 1200) -> None:
    """Figures as files, by the ends of their names: .svg, or .png of twice the pixels.

    Raises:
        LrsearchError: Says what to install where kaleido or a browser is missing.
    """
    if find_spec("kaleido") is None:
        raise LrsearchError(f"cannot write pictures: kaleido is not installed. {NEEDS}")
    _import_kaleido()
    import plotly.io

    drawn = [copy.deepcopy(figure) for figure in figures]
    for figure in drawn:
        figure.update_layout(
            template="none", paper_bgcolor="white", plot_bgcolor="white", font_color="#333333"
        )
    try:
        plotly.io.write_images(
            drawn,
            [str(p) for p in paths],
            width=width,
            height=[int(figure.layout.height or 480) for figure in drawn],
            scale=[1 if path.suffix == ".svg" else 2 for path in paths],
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise _failed(error) from None


def write_overview(study: optuna.Study, path: Path) -> Path:
    """Every schedule that a study tried, and its loss, as one picture: .svg or .png.

    Raises:
        UsageError: Another kind of file.
        LrsearchError: Says what to install where kaleido or a browser is missing.
    """
    from lrsearch.report.overview import overview_figure, overview_table

    if path.suffix not in (".svg", ".png"):
        raise UsageError(f"--overview {path}: the name must end in .svg or .png")
    make_folder(path.parent)
    write_pictures([overview_figure(overview_table(load(study)))], [path])
    return path


def _import_kaleido() -> None:
    """Import it while our command line is hidden: a module below it reads that, and trips."""
    ours, sys.argv = sys.argv, sys.argv[:1]
    try:
        import kaleido  # noqa: F401
    except ImportError as error:
        raise _failed(error) from None
    finally:
        sys.argv = ours


def _failed(error: BaseException) -> LrsearchError:
    return LrsearchError(f"cannot write pictures: {first_line(error).rstrip('.')}. {NEEDS}")

"""The figures that a run leaves behind: small pages of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lrsearch.files import write_text
from lrsearch.prediction.beliefs import foretold
from lrsearch.report import figures, importance_shown, learning_curves
from lrsearch.report.html import document, escape, figure
from lrsearch.report.importance import Importance, importance
from lrsearch.report.importance_shown import importance_sentences
from lrsearch.report.lr_range import RANGE, lr_range_figure, lr_range_table
from lrsearch.report.tables import StudyTable

if TYPE_CHECKING:
    import optuna
    from plotly.graph_objects import Figure


class Part(NamedTuple):
    """A section of a page; without a figure it is its caption alone."""

    name: str
    figure: Figure | None
    heading: str
    caption: str


MARKS = (
    "Filled marks were trained to the end. Hollow ones were stopped early and stand at the loss "
    "they had then. Marks on the rail diverged."
)
WORTH = (
    "Pruned trials count with the loss that is predicted for their end, diverged ones as the "
    "worst. Whiskers: how far the trees of the forest differ."
)


def write_figures(
    study: optuna.Study, table: StudyTable, folder: Path
) -> tuple[list[Path], Importance]:
    """Write the pages of a run, such as importance.html; none needs the network.

    Args:
        study: The study.
        table: Its trials.
        folder: An existing folder.

    Returns:
        The files, and what mattered.
    """
    written = []
    mattered = importance(table, foretold(study), brief=True)
    drawn = pages(table, mattered)
    if (test := lr_range_table(study)) is not None:
        drawn["lr_range"] = [
            Part("range", lr_range_figure(test), "Learning-rate range test", RANGE)
        ]
    for name, parts in drawn.items():
        path = folder / f"{name}.html"
        heading = f"<header><p class='kicker'>lrsearch</p><h1>{escape(table.name)}</h1></header>"
        body = "".join(map(_section, parts))
        title = f"{table.name} · {name.replace('_', ' ')}"
        write_text(path, document(title, f"<main>{heading}{body}</main>", kind="single"))
        written.append(path)
    return written, mattered


def pages(table: StudyTable, mattered: Importance) -> dict[str, list[Part]]:
    """The pages' figures: file name -> parts."""
    scatter = figures.lr_vs_val_loss_figure(figures.lr_vs_val_loss_table(table))
    best = learning_curves.best_curves(table)
    matter = [Part("importance", None, "What mattered", importance_sentences(mattered)[0])]
    if mattered.overall is not None:
        drawn = importance_shown.importance_figure(mattered)
        matter = [Part("importance", drawn, "What mattered", WORTH)]
    if mattered.within:
        text = "Each family's own parameters; lrsearch report has its better half beside it."
        matter.append(
            Part("within", importance_shown.within_figure(mattered), "Within each family", text)
        )
    return {
        "importance": matter,
        "lr_vs_val_loss": [
            Part("scatter", scatter, "Peak learning rate against validation loss", MARKS),
            Part(
                "paths",
                learning_curves.paths_figure(best[:6]),
                "The way the best ones took",
                "Rate and validation loss of each epoch; the large mark is the end.",
            ),
        ],
        "curves": [
            Part(
                "curves",
                learning_curves.learning_curves_figure(best),
                "The best of each family over its epochs",
                "Learning rate above, validation loss below.",
            )
        ],
    }


def _section(part: Part) -> str:
    drawn = "" if part.figure is None else figure(part.name, part.figure, part.heading)
    heading, caption = escape(part.heading), escape(part.caption)
    return f"<section><h2>{heading}</h2><p class='note'>{caption}</p>{drawn}</section>"

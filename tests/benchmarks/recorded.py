"""Learning curves of trials that were trained in full, from a file or from a study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna

from lrsearch.errors import LrsearchError
from lrsearch.prediction.curves import COMPLETE, DIVERGED, load_curves
from lrsearch.prediction.surrogate import Array, trace_features
from lrsearch.storage import open_storage

DIVERGED_LOSS = 1e6


@dataclass(frozen=True)
class Record:
    """Curves of trials that were trained in full.

    Attributes:
        name: Of the file or study.
        lr: Rate of each epoch, (n, E).
        raw: Validation loss after each epoch, (n, E); not finite after divergence.
        avg: The same of the average of the weights.
        features: Of the traces.
    """

    name: str
    lr: Array
    raw: Array
    avg: Array
    features: Array


def read(source: str, study: str | None = None) -> Record:
    """A curve file (``.npz``), or the completed trials of a study in a database (a URL)."""
    if not source.endswith(".npz"):
        try:
            return _read_study(source, study)
        except LrsearchError as error:
            raise SystemExit(str(error)) from None
    if not Path(source).is_file():
        raise SystemExit(f"{source} does not exist; give a curve file (.npz) or a database's URL")
    with np.load(source) as z:
        arrays = {
            k: np.asarray(z[k], dtype=np.float64) for k in ("lr", "val_loss", "avg_val_loss")
        }
    raw, avg = (_diverged(arrays[k]) for k in ("val_loss", "avg_val_loss"))
    lr = arrays["lr"]
    return Record(Path(source).stem, lr, raw, avg, trace_features(lr))


def _read_study(url: str, name: str | None) -> Record:
    storage = open_storage(url, create=False)
    names = [s.study_name for s in storage.get_all_studies()]
    if name not in names:
        raise SystemExit(f"name one of the studies with --study: {', '.join(names)}")
    curves = load_curves(optuna.load_study(study_name=name, storage=storage))
    full = curves.take(np.isin(curves.state, (COMPLETE, DIVERGED)))
    if not (full.state == COMPLETE).any():
        raise SystemExit(f"study {name!r} has no completed trial to replay")
    raw, avg = _diverged(full.raw), _diverged(full.avg)
    return Record(str(name), full.lr, raw, avg, full.features)


def _diverged(losses: Array) -> Array:
    """From the first loss that is not finite on: infinite."""
    bad = np.cumsum(~(np.abs(losses) < DIVERGED_LOSS), axis=1) > 0
    return np.where(bad, np.inf, losses)

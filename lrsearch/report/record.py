"""A record: what a study found and all that is needed to doubt it, in one small JSON file.

``lrsearch report STUDY --record FILE.json`` writes the file, a figure beside it (``FILE.svg``)
and, where the folder's README.md has the lines ``<!-- FILE.json -->`` and ``<!-- /FILE.json -->``,
the tables between them. Nothing in it says where on this machine anything lies.
"""

from __future__ import annotations

import itertools
import json
import math
import platform
import re
import statistics
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna

from lrsearch.errors import UsageError
from lrsearch.files import write_text
from lrsearch.report.command import command_line, confirming
from lrsearch.report.confirmed import Arm, Confirmed
from lrsearch.report.confirmed_study import confirmed_of
from lrsearch.report.pictures import write_pictures
from lrsearch.report.record_shown import record_block, record_figure
from lrsearch.report.tables import (
    StudyTable,
    TrialRow,
    answer,
    load,
    load_confirmation,
    pruning,
    rounded,
)
from lrsearch.schedules import FAMILIES
from lrsearch.stats import all_positive, paired, summary, with_lost

MACHINE = ("storage", "data_dir", "out", "device", "fuse", "workers", "log", "compile")
"""Settings that say where a study ran, not what it is."""
MOST_ARMS = 4
"""Of more arms not every pair is compared: the correction would hide what was asked."""


def make_record(study: optuna.Study) -> dict[str, Any]:
    """Everything as plain values: arms with their raw values, each pair compared on its seeds.

    ``comparisons`` has a row for each two arms ``a`` and ``b``, the one with the lower median
    first; of more than four arms only for the best of the search and each other one, as in
    ``confirm``. How much lower ``a`` is, with interval and p: :func:`lrsearch.stats.paired`.
    ``a_lower``, ``equal`` and ``b_lower`` count seeds.
    ``commit`` is that of the code that wrote the record.

    Args:
        study: A search of ``lrsearch run``, at least one trial of it complete.

    Raises:
        UsageError: No trial is complete.
    """
    table = load(study)
    found = answer(table)
    if found is None:
        raise UsageError(f"study {table.name!r} has no completed trial to record")
    if not table.config:
        raise UsageError(
            f"study {table.name!r} was not made by lrsearch run, so a record could not say how to "
            "make it again; lrsearch report without --record shows it"
        )
    again, planned = load_confirmation(study)
    confirmed = None if again is None else confirmed_of(again, planned)
    tables = [table] if again is None else [table, again]
    ended = [t.finished for each in tables for t in each.trials if t.finished]
    config = {k: v for k, v in table.config.items() if k not in MACHINE and v is not None}
    config["task"] = _without_folder(str(config.get("task", "")))
    if "imports" in config:
        config["imports"] = [_without_folder(place) for place in config["imports"]]
    plan = {k: v for k, v in table.plan.items() if v is not None}
    commands = [command_line(table.name, config)]
    if confirmed is not None:
        seeds = len(confirmed.seeds)
        commands.append(confirming(config, table.name, top=planned["top"], seeds=seeds))
    out: dict[str, Any] = {
        "study": table.name,
        "date": f"{max(ended):%Y-%m-%d}" if ended else None,
        "hardware": {
            "devices": sorted({t.device for each in tables for t in each.trials if t.device}),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": dict(table.info.get("versions") or {}),
        "commit": _commit(),
        "commands": commands,
        "settings": {**config, "plan": plan},
        "search": _search(table, found.best),
    }
    if confirmed is not None:
        out["confirm"] = _confirm(confirmed)
    return out


def _search(table: StudyTable, best: TrialRow) -> dict[str, Any]:
    stopped = pruning(table)
    return {
        "trials": len(table.trials),
        **{status: n for status, n in stopped.counts.items() if n},
        "epochs": stopped.epochs_run,
        "epochs_saved": round(stopped.saved, 4),
        "wall_seconds": _from_start_to_end(table),
        "best": {
            "trial": best.number,
            "val_loss": best.value,
            "baseline": best.baseline,
            "schedule": dict(best.schedule),
        },
        "baselines": {str(t.baseline): t.value for t in table.complete if t.baseline},
        "columns": ["trial", "family", "lr", "status", "epochs", "last val_loss"],
        "runs": [
            [t.number, t.family, rounded(t.lr, 6), t.status, t.epochs, rounded(t.last_loss, 6)]
            for t in table.trials
        ],
    }


def _from_start_to_end(table: StudyTable) -> float | None:
    """Seconds from the first trial's start to the last one's end, with all pauses."""
    started = [t.started for t in table.trials if t.started]
    finished = [t.finished for t in table.trials if t.finished]
    if not started or not finished:
        return None
    return round((max(finished) - min(started)).total_seconds(), 1)


def _confirm(found: Confirmed) -> dict[str, Any]:
    return {
        "winner_of_search": found.winner.key,
        "seeds": list(found.seeds),
        "arms": {arm.key: _arm(arm, found.metric_name) for arm in found.arms},
        "comparisons": comparisons({a.key: a.losses for a in found.arms}, found.winner.key),
    }


def comparisons(arms: Mapping[str, Mapping[int, float]], winner: str) -> list[dict[str, Any]]:
    """Each two arms compared, as :func:`make_record` says.

    Args:
        arms: Name -> seed -> validation loss, infinite where the seed was lost.
        winner: The best of the search.
    """
    ran = with_lost({key: values for key, values in arms.items() if values})

    def middle(key: str) -> float:
        finite = [v for v in arms[key].values() if math.isfinite(v)]
        return statistics.median(finite) if finite else math.inf

    order = sorted(ran, key=middle)
    pairs = [
        (a, b)
        for a, b in itertools.combinations(order, 2)
        if set(ran[a]) & set(ran[b]) and (len(order) <= MOST_ARMS or winner in (a, b))
    ]
    relative = all_positive(*ran.values())
    out = []
    for a, b in pairs:
        row = asdict(paired(ran[a], ran[b], b, relative=relative, among=len(pairs)))
        lower, higher = row.pop("lower"), row.pop("higher")
        counts = {"a_lower": lower, "equal": row["n"] - lower - higher, "b_lower": higher}
        out.append({"a": a, "b": row.pop("name"), **row, **counts})
    return out


def _arm(arm: Arm, metric_name: str) -> dict[str, Any]:
    found = arm.val
    own = arm.baseline is not None and arm.key not in FAMILIES
    out: dict[str, Any] = {
        "label": arm.key if own else arm.label,
        "schedule": dict(arm.schedule),
        "n": found.n,
        "mean": found.mean if found.n else None,
        "sd": found.sd,
        "median": statistics.median(arm.val_loss.values()) if found.n else None,
        "lost_seeds": list(arm.lost),
        "val_loss": {str(seed): value for seed, value in arm.val_loss.items()},
    }
    for name, values in (("loss", arm.test_loss), (metric_name, arm.test_metric)):
        if values:
            test = summary(list(values.values()))
            out[f"test_{name}"] = {"mean": test.mean, "sd": test.sd, "n": test.n}
    return out


def _without_folder(task: str) -> str:
    """A task or file that lies at an absolute path of this machine, without the folder."""
    return Path(task).name if Path(task).is_absolute() else task


def _commit() -> str | None:
    """Short hash of the checkout that this code runs from; None where it is installed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--short", "HEAD"],
            capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def to_json(record: Mapping[str, Any]) -> str:
    """The record as text: indented, a row of the search and the values of an arm on a line."""
    rows: list[str] = []

    def hold(value: Any) -> Any:
        rows.append(json.dumps(value))
        return f"@{len(rows) - 1}@"

    plain = json.loads(json.dumps(record))
    plain["search"]["runs"] = [hold(row) for row in plain["search"]["runs"]]
    confirm = plain.get("confirm") or {"arms": {}}
    for arm in confirm["arms"].values():
        arm["val_loss"] = hold(arm["val_loss"])
        arm["schedule"] = hold(arm["schedule"])
    if "seeds" in confirm:
        confirm["seeds"] = hold(confirm["seeds"])
    text = json.dumps(plain, indent=1, ensure_ascii=False)
    return re.sub(r'"@(\d+)@"', lambda match: rows[int(match[1])], text) + "\n"


def write_record(study: optuna.Study, path: Path) -> list[Path]:
    """Write the record, its figure and the tables in the README beside it.

    Args:
        study: As for :func:`make_record`.
        path: ``FILE.json``.

    Returns:
        The files written.

    Raises:
        UsageError: The name does not end in .json, or no trial is complete.
        LrsearchError: A file cannot be written, or there is no kaleido for the figure.
    """
    if path.suffix != ".json":
        raise UsageError(f"--record needs FILE.json, got {path.name!r}")
    record = make_record(study)
    write_text(path, to_json(record))
    picture = path.with_suffix(".svg")
    write_pictures([record_figure(record)], [picture], width=960)
    return [path, picture, *refresh_readme(record, path)]


def refresh_readme(record: Mapping[str, Any], path: Path) -> list[Path]:
    """Put the tables of a record between its markers, if the README beside it has them."""
    readme = path.parent / "README.md"
    start, end = f"<!-- {path.name} -->", f"<!-- /{path.name} -->"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        return []
    write_text(readme, before + record_block(record, path.name) + after)
    return [readme]

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
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsearch.errors import UsageError
from lrsearch.files import write_text
from lrsearch.report.command import command_line
from lrsearch.report.confirmed import ATTR, SUFFIX, Arm, Confirmed, confirmed_of
from lrsearch.report.record_tables import record_block
from lrsearch.report.tables import StudyTable, answer, load
from lrsearch.schedules import FAMILIES
from lrsearch.stats import holm, paired, summary

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage

FIELDS = ("study", "date", "hardware", "versions", "commit", "commands", "settings", "search")
"""What every record has; ``confirm`` too, where it was run."""
MACHINE = ("storage", "data_dir", "out", "device", "fuse", "workers", "log", "compile")
"""Settings that say where a study ran, not what it is."""
MOST_ARMS = 4
"""Of more arms not every pair is compared: the correction would hide what was asked."""


def make_record(study: optuna.Study, storage: BaseStorage) -> dict[str, Any]:
    """Everything as plain values: arms with their raw values, each pair compared on its seeds.

    ``comparisons`` has a row for each two arms ``a`` and ``b``, the one with the lower mean first;
    of more than four arms only for the best of the search and each other one, as in ``confirm``.
    ``difference`` is the mean of ``b - a`` over the seeds that both have, with its 95% interval
    and the p of a paired t-test, corrected after Holm over all rows. ``a_lower``, ``equal`` and
    ``b_lower`` count seeds, with the p of a sign test, which runs that fail outright cannot sway.
    ``commit`` is that of the code that wrote the record.

    Args:
        study: A search of ``lrsearch run``, at least one trial of it complete.
        storage: Its database, where its confirmation lies too.

    Raises:
        UsageError: No trial is complete.
    """
    table = load(study, storage)
    found = answer(table)
    if found is None:
        raise UsageError(f"study {table.name!r} has no completed trial to record")
    if not table.config:
        raise UsageError(
            f"study {table.name!r} was not made by lrsearch run, so a record could not say how to "
            "make it again; lrsearch report without --record shows it"
        )
    again, confirmed, top = _confirmation(table.name, storage)
    tables = [table] if again is None else [table, again]
    ended = [t.finished for each in tables for t in each.trials if t.finished]
    info = table.info
    config = {k: v for k, v in table.config.items() if k not in MACHINE and v is not None}
    config["task"] = _without_folder(str(config.get("task", "")))
    plan = {k: v for k, v in (info.get("plan") or {}).items() if v is not None}
    commands = [command_line(table.name, config)]
    if confirmed is not None:
        seeds = len(confirmed.seeds)
        commands.append(f"lrsearch confirm {table.name} --top {top} --seeds {seeds}")
    out: dict[str, Any] = {
        "study": table.name,
        "date": f"{max(ended):%Y-%m-%d}" if ended else None,
        "hardware": {
            "devices": sorted({t.device for each in tables for t in each.trials if t.device}),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": dict(info.get("versions") or {}),
        "commit": _commit(),
        "commands": commands,
        "settings": {**config, "plan": plan},
        "search": _search(table),
    }
    if confirmed is not None:
        out["confirm"] = _confirm(confirmed)
    return out


def _confirmation(
    name: str, storage: BaseStorage
) -> tuple[StudyTable | None, Confirmed | None, int]:
    import optuna

    try:
        study = optuna.load_study(study_name=name + SUFFIX, storage=storage)
    except KeyError:
        return None, None, 0
    plan = study.user_attrs.get(ATTR)
    if not isinstance(plan, Mapping):
        return None, None, 0
    table = load(study, storage)
    return table, confirmed_of(table, plan), int(plan.get("top", 3))


def _search(table: StudyTable) -> dict[str, Any]:
    found = answer(table)
    assert found is not None
    counts = {
        status: len(table.having(status))
        for status in ("complete", "pruned", "diverged", "failed", "running", "waiting")
    }
    run, full = sum(t.epochs for t in table.trials), sum(t.budget for t in table.trials)
    return {
        "trials": len(table.trials),
        **{status: n for status, n in counts.items() if n},
        "epochs": run,
        "epochs_saved": round(1 - run / full, 4) if full else 0.0,
        "wall_seconds": _wall_seconds(table),
        "best": {
            "trial": found.best.number,
            "val_loss": found.best.value,
            "baseline": found.best.baseline,
            "schedule": dict(found.best.schedule),
        },
        "baselines": {str(t.baseline): t.value for t in table.complete if t.baseline},
        "columns": ["trial", "family", "lr", "status", "epochs", "last val_loss"],
        "runs": [
            [t.number, t.family, _short(t.lr), t.status, t.epochs, _short(t.last_loss)]
            for t in table.trials
        ],
    }


def _wall_seconds(table: StudyTable) -> float | None:
    """From the first trial's start to the last one's end; fused trials share their seconds."""
    started = [t.started for t in table.trials if t.started]
    finished = [t.finished for t in table.trials if t.finished]
    if not started or not finished:
        return None
    return round((max(finished) - min(started)).total_seconds(), 1)


def _short(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _confirm(found: Confirmed) -> dict[str, Any]:
    arms = {arm.key: _arm(arm, found.metric_name) for arm in found.arms}
    best_first = sorted((a for a in found.arms if a.val_loss), key=lambda a: a.val.mean)
    rows = [
        (a, b, paired(a.val_loss, b.val_loss, b.key))
        for a, b in itertools.combinations(best_first, 2)
        if set(a.val_loss) & set(b.val_loss)
        and (len(best_first) <= MOST_ARMS or found.winner.key in (a.key, b.key))
    ]
    tested = [row.p for *_, row in rows if row.p is not None]
    corrected = iter(holm(tested))
    comparisons = []
    for a, b, row in rows:
        if row.p is not None:
            row = replace(row, p_corrected=next(corrected))
        common = sorted(set(a.val_loss) & set(b.val_loss))
        lower = sum(a.val_loss[s] < b.val_loss[s] for s in common)
        higher = sum(a.val_loss[s] > b.val_loss[s] for s in common)
        comparisons.append(
            {
                "a": a.key,
                "b": b.key,
                "n": row.n,
                "difference": row.difference,
                "sd": row.sd,
                "low": row.low,
                "high": row.high,
                "p": row.p,
                "p_corrected": row.p_corrected,
                "a_lower": lower,
                "equal": len(common) - lower - higher,
                "b_lower": higher,
                "sign_p": _sign_test(lower, higher),
            }
        )
    return {
        "winner_of_search": found.winner.key,
        "seeds": list(found.seeds),
        "arms": arms,
        "comparisons": comparisons,
    }


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


def _sign_test(lower: int, higher: int) -> float | None:
    from scipy.stats import binomtest

    n = lower + higher
    return float(binomtest(lower, n).pvalue) if n else None


def _without_folder(task: str) -> str:
    """A task whose file lies at an absolute path of this machine, without the folder."""
    place, colon, name = task.rpartition(":")
    return f"{Path(place).name}{colon}{name}" if colon and Path(place).is_absolute() else task


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


def write_record(study: optuna.Study, storage: BaseStorage, path: Path) -> list[Path]:
    """Write the record, its figure and the tables in the README beside it.

    Args:
        study: As for :func:`make_record`.
        storage: As for :func:`make_record`.
        path: ``FILE.json``.

    Returns:
        The files written.

    Raises:
        UsageError: The name does not end in .json, or no trial is complete.
        LrsearchError: A file cannot be written, or there is no kaleido for the figure.
    """
    from lrsearch.report.record_figure import record_figure
    from lrsearch.report.save import write_pictures

    if path.suffix != ".json":
        raise UsageError(f"--record needs FILE.json, got {path.name!r}")
    record = make_record(study, storage)
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

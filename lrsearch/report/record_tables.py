"""The tables of a record, as Markdown for the README beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lrsearch.report import words
from lrsearch.report.tables import ENDED
from lrsearch.stats import method


def record_block(record: Mapping[str, Any], name: str) -> str:
    """The Markdown between the markers of a README: tables, and how they were made."""
    lines = [f"<!-- {name} -->", *_facts(record), ""]
    confirm = record.get("confirm")
    if confirm is None:
        lines += _search_lines(record["search"])
    else:
        lines += [*_arm_lines(confirm), "", *_pair_lines(confirm)]
    return "\n".join([*lines, f"<!-- /{name} -->"])


def _facts(record: Mapping[str, Any]) -> list[str]:
    versions = record["versions"]
    made = ", ".join(
        f"{k} {versions[k]}" for k in ("lrsearch", "torch", "optuna") if k in versions
    )
    search = record["search"]
    ended = ", ".join(f"{search[status]} {status}" for status in ENDED if status in search)
    return [
        f"{record['date']}, {'; '.join(record['hardware']['devices'])}, {made}. "
        f"Search: {words.count(search['trials'], 'trial')} ({ended}), "
        f"{words.duration(search['wall_seconds'] or 0)} from start to end."
    ]


def _search_lines(search: Mapping[str, Any]) -> list[str]:
    best = search["best"]
    name = f"{best['schedule']['family']}, lr {words.number(best['schedule']['lr'])}"
    rows = [(f"**{name}** (best of the search)", best["val_loss"])]
    rows += [(words.markdown(str(key)), value) for key, value in search["baselines"].items()]
    head = ["| schedule | validation loss, one seed |", "|---|---|"]
    return head + [f"| {name} | {words.loss(value)} |" for name, value in rows]


def _arm_lines(confirm: Mapping[str, Any]) -> list[str]:
    arms = confirm["arms"]
    tests = sorted({k for arm in arms.values() for k in arm if k.startswith("test_")})
    tests = [k for k in tests if k != "test_loss"]
    head = ["schedule", "seeds", "validation loss: median", "mean", "sd"]
    head += [key.replace("_", " ") for key in tests]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    order = sorted(arms, key=lambda k: (arms[k]["median"] is None, arms[k]["median"]))
    for key in order:
        arm = arms[key]
        cells = [_name(arms, key), str(arm["n"]), words.loss(arm["median"])]
        cells += [words.loss(arm["mean"]), words.number(arm["sd"], 2)]
        cells += [
            f"{words.number(arm[t]['mean'], 4)} ± {words.number(arm[t]['sd'], 2)}"
            if t in arm
            else "–"
            for t in tests
        ]
        if arm["lost_seeds"]:
            cells[1] += f" (+{len(arm['lost_seeds'])} lost)"
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _name(arms: Mapping[str, Any], key: str) -> str:
    label = words.markdown(str(arms[key]["label"]))
    return f"{label} ({key})" if key.startswith("#") else label


def _pair_lines(confirm: Mapping[str, Any]) -> list[str]:
    lines = [
        "| a | b | a is lower by | 95% interval | p | seeds: a lower, equal, b lower |",
        "|---" * 6 + "|",
    ]
    arms = confirm["arms"]
    for row in confirm["comparisons"]:
        by, low, high = (
            words.lower_by(row[key], row["relative"]) for key in ("difference", "low", "high")
        )
        cells = [_name(arms, row["a"]), _name(arms, row["b"]), by]
        cells += ["–" if row["low"] is None else f"{low} to {high}"]
        cells += [words.p_value(row["p_corrected"])]
        cells += [f"{row['a_lower']}, {row['equal']}, {row['b_lower']}"]
        lines.append(f"| {' | '.join(cells)} |")
    if rows := confirm["comparisons"]:
        tests, equal = {row["test"] for row in rows}, any(row["equal"] for row in rows)
        lost = any(arm["lost_seeds"] for arm in arms.values())
        lines += ["", method(rows[0]["relative"], tests, equal, lost)]
    return lines

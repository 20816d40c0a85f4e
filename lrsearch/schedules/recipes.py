"""Baselines that a study states itself: the recipes that a search has to beat.

```yaml
baselines:
  CosineAnnealingLR:                                  # the usual recipe of that family
  StepLR: {lr: 0.4}                                   # the same at another rate
  mine: {family: StepLR, lr: 0.1, step_size: 10, gamma: 0.1}
  longer: {family: StepLR, step_size: 0.5, gamma: 0.1, warmup: 0.05}   # shares of the budget
```
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lrsearch.errors import ConfigError, UsageError, did_you_mean
from lrsearch.schedules.args import MAX_EPOCHS, MAX_LR, check_args
from lrsearch.schedules.convert import round_half_up
from lrsearch.schedules.family import FAMILIES, Family, get_family
from lrsearch.schedules.ranges import as_number
from lrsearch.schedules.schedule import Schedule

KEYS = ("family", "lr", "warmup", "interval")
"""What a recipe says beside the arguments of its family."""

USUAL: dict[str, dict[str, Any]] = {
    "StepLR": {"step_size": 1 / 3, "gamma": 0.1},
    "OneCycleLR": {"pct_start": 0.3, "div_factor": 25.0, "final_div_factor": 1e4},
}
"""What the usual recipes of these families say; of others it is their defaults."""


def checked_recipe(name: str, given: Any) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """A recipe with its family named, and the mistakes in it that need no budget to be seen.

    Args:
        name: The baseline's name; its family too, where none is given.
        given: What was written: nothing, or keys and values.

    Returns:
        (the recipe, mistakes as (path below the recipe, rule)).
    """
    if given is not None and not isinstance(given, Mapping):
        return {}, [("", f"needs {{family: ..., lr: ..., ...}} or nothing, got {given!r:.60}")]
    found = {str(key): value for key, value in (given or {}).items()}
    family = str(found.get("family", name))
    known = {each.lower(): each for each in FAMILIES}.get(family.lower())
    if known is None:
        try:
            get_family(family)
        except UsageError as error:
            near = did_you_mean(family, FAMILIES)
            hint = "" if near or "family" in found else "; or give {family: StepLR, ...}"
            return {}, [("family" if "family" in found else "", f"{error}{hint}")]
    if not found.keys() - set(KEYS):
        found = USUAL.get(str(known), {}) | found
    found = {"family": known, **{k: v for k, v in found.items() if k != "family"}}
    try:
        make_recipe(found, epochs=MAX_EPOCHS, lr=MAX_LR)
    except ConfigError as error:
        later = _of_the_budget(found)  # what only the study's own budget can tell
        return found, [_placed(str(known), text) for text in error.mistakes if text not in later]
    return found, []


def _of_the_budget(recipe: Mapping[str, Any]) -> list[str]:
    """The mistakes that a family finds in a recipe for the longest budget."""
    family = get_family(recipe["family"])
    params, _, left = _in_whole_epochs(recipe, MAX_EPOCHS)
    args, mistakes = check_args(family.name, family.args, params, MAX_LR, left)
    return [] if mistakes or family.check is None else family.check(args, left)


def _placed(family: str, mistake: str) -> tuple[str, str]:
    """``StepLR.gamma: must be ...`` -> (``gamma``, ``must be ...``)."""
    place, colon, rule = mistake.partition(": ")
    name = place.removeprefix(f"{family}.")
    return (name, rule) if colon and name.isidentifier() else ("", mistake)


def make_recipe(
    given: Mapping[str, Any], *, epochs: int, lr: float, interval: str = "auto"
) -> Schedule:
    """The schedule of a recipe on a budget.

    Args:
        given: ``family``, and perhaps ``lr``, ``warmup``, ``interval`` and the family's arguments
            in torch's names. A duration in whole epochs (``step_size``, ``milestones``,
            ``T_max``, ``warmup``, ...) that is below 1 is a share of the budget; one that may be
            a part of an epoch (``step_size_up``, ``timescale``) is not.
        epochs: Budget.
        lr: Peak rate where the recipe has none of its own.
        interval: When it is stepped, where the recipe does not say.

    Raises:
        ConfigError: All mistakes at once.

    Example:
        >>> recipe = {"family": "StepLR", "lr": 0.1, "step_size": 0.5, "gamma": 0.1}
        >>> make_recipe(recipe, epochs=20, lr=1.0).describe()
        'StepLR  step_size 10 gamma 0.1'
    """
    family = get_family(given["family"])
    params, warmup, _ = _in_whole_epochs(given, epochs)
    peak = given.get("lr")
    if peak is None:
        peak = _top(params) if family.name == "Points" else lr
    stepped: Any = given.get("interval") or ("epoch" if family.needs_metric else interval)
    return Schedule(family.name, peak, epochs, params, warmup, interval=stepped)


def _in_whole_epochs(recipe: Mapping[str, Any], epochs: int) -> tuple[dict[str, Any], Any, int]:
    """Arguments and warmup with whole epochs for shares, and the epochs after the warmup."""
    family = get_family(recipe["family"])
    warmup = _whole(recipe.get("warmup") or 0, epochs)
    number = as_number(warmup)
    left = epochs - (0 if number is None else int(number))
    given = {name: value for name, value in recipe.items() if name not in KEYS}
    return {k: _in_epochs(family, k, value, left) for k, value in given.items()}, warmup, left


def _in_epochs(family: Family, name: str, value: Any, left: int) -> Any:
    kind = family.args[name].kind if name in family.args else ""
    if kind == "epochs":
        return _whole(value, left)
    if kind == "milestones" and isinstance(value, (list, tuple)):
        shares = any(_whole(each, left) is not each for each in value)
        whole = [_whole(each, left) for each in value]
        return list(dict.fromkeys(whole)) if shares else whole  # may meet on a short budget
    return value


def _whole(value: Any, epochs: int) -> Any:
    """A share of the budget in whole epochs, at least 1; other values as they are."""
    number = as_number(value)
    if number is None or not 0 < number < 1:
        return value
    return max(1, round_half_up(number * epochs))


def _top(params: Mapping[str, Any]) -> float:
    """The highest rate of a curve that is given by points; 1 where they are not points."""
    try:
        return float(max(as_number(point[1]) or 0.0 for point in params["points"])) or 1.0
    except (KeyError, TypeError, IndexError, ValueError):
        return 1.0

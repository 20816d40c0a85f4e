"""Optuna's fANOVA of numbers: the same forests and shares, in less time.

Optuna's :class:`~optuna.importance.FanovaImportanceEvaluator` walks through each tree in Python,
once for every piece of every parameter. Here the leaves of a tree are arrays; all else is
Optuna's own. :func:`encode` makes numbers of all parameters first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from lrsearch.imports import hollow, postponed, uncollected

# scikit-learn's trees, and hardly more of it: the rest takes a third of a second.
with uncollected(keep=False), postponed("scipy.stats"), postponed("sklearn.ensemble"):
    from optuna.importance import FanovaImportanceEvaluator
    from optuna.importance._fanova._fanova import _Fanova
    from optuna.importance._fanova._tree import _FanovaTree
with (
    uncollected(keep=False),
    postponed("scipy.stats"),
    postponed("sklearn.metrics"),
    postponed("sklearn.preprocessing"),
    hollow("sklearn.neighbors"),
):
    import sklearn
    from sklearn.tree import DecisionTreeRegressor


def encode(
    columns: Mapping[str, Sequence[Any]],
    distributions: Mapping[str, BaseDistribution],
    values: np.ndarray,
) -> tuple[dict[str, list[Any]], dict[str, BaseDistribution]]:
    """Parameters as fANOVA should see them: logarithms, and categories ordered by mean value.

    Optuna's fANOVA takes the mean over the *linear* scale, where nearly all of a log range is its
    last decade, and splits one-hot columns, where it averages over impossible combinations (2ᵏ
    cells for k categories). It ends the range of whole numbers at the first and the last one,
    which then have half the width of the others, and weigh half. Here a whole number, and so a
    category, reaches half a step to both sides, as in Optuna's samplers.
    """
    cells: dict[str, list[Any]] = {}
    spaces: dict[str, BaseDistribution] = {}
    for name, column in columns.items():
        space = distributions[name]
        if isinstance(space, CategoricalDistribution):
            keys = [repr(v) for v in column]
            mean = {
                k: np.mean([v for j, v in zip(keys, values, strict=True) if j == k])
                for k in dict.fromkeys(keys)
            }
            rank = {k: i for i, k in enumerate(sorted(mean, key=lambda k: (mean[k], k)))}
            cells[name] = [rank[k] for k in keys]
            spaces[name] = FloatDistribution(-0.5, len(rank) - 0.5)
            continue
        assert isinstance(space, (FloatDistribution, IntDistribution))
        scaled = math.log if space.log else float
        numbers = [scaled(v) for v in column]
        half = (space.step or 0) / 2
        low, high = min(space.low, *column) - half, max(space.high, *column) + half
        cells[name] = numbers
        spaces[name] = FloatDistribution(scaled(low), scaled(high))
    return cells, spaces


class Fanova(FanovaImportanceEvaluator):
    """Optuna's evaluator for studies whose parameters are all numbers.

    Args:
        n_trees: Of the forest.
        max_depth: Of its trees.
        seed: Of the forest.
    """

    def __init__(self, *, n_trees: int, max_depth: int, seed: int) -> None:
        self._evaluator = _Forest(n_trees, max_depth, seed)

    def fractions(self) -> list[np.ndarray]:
        """The part of all differences that each tree gives a parameter alone.

        All differences are those between the leaves of a tree, by which :meth:`evaluate` divides,
        and those within its leaves, each leaf by the room that it takes.

        Returns:
            An array (trees,) for each parameter that has more than one value, by its name.
        """
        trees: Any = self._evaluator._trees  # each a `_Tree`; it says Optuna's
        parts = self._evaluator._variances
        assert parts is not None
        whole = np.array([tree.variance + tree.within for tree in trees])
        grown = whole > 0
        return [parts[i][grown] / whole[grown] for i in sorted(parts)]


class _Forest(_Fanova):
    """Optuna's, with our trees in place of its own."""

    def __init__(self, n_trees: int, max_depth: int, seed: int) -> None:
        self._n_trees, self._max_depth, self._seed = n_trees, max_depth, seed

    def fit(
        self,
        X: np.ndarray,  # noqa: N803
        y: np.ndarray,
        search_spaces: np.ndarray,
        column_to_encoded_columns: list[np.ndarray],
    ) -> None:
        """Grow the trees."""
        grown = forest(X, y, self._n_trees, self._max_depth, self._seed)
        self._trees = [_Tree(each.tree_, search_spaces) for each in grown]
        self._column_to_encoded_columns = column_to_encoded_columns
        self._variances = {}
        if all(tree.variance == 0 for tree in self._trees):
            raise RuntimeError("no tree finds any difference between these trials")


def forest(
    X: np.ndarray,  # noqa: N803
    y: np.ndarray,
    n_trees: int,
    max_depth: int,
    seed: int,
) -> list[DecisionTreeRegressor]:
    """The trees of scikit-learn's ``RandomForestRegressor`` of these settings.

    Its own loop around such small trees takes as long as they do.

    Args:
        X: Parameters of each trial, (trials, parameters), finite.
        y: Its value, (trials,), finite.
        n_trees: Trees, each of a bootstrap sample.
        max_depth: Of each.
        seed: Of all.
    """
    x, values = np.ascontiguousarray(X, np.float32), np.reshape(y, (-1, 1)).astype(np.float64)
    seeds = np.random.RandomState(seed).randint(np.iinfo(np.int32).max, size=n_trees).tolist()
    trees = [DecisionTreeRegressor(max_depth=max_depth, random_state=each) for each in seeds]
    with sklearn.config_context(skip_parameter_validation=True):
        for tree in trees:
            drawn = np.random.RandomState(tree.random_state).randint(0, len(x), len(x))
            weight = np.bincount(drawn, minlength=len(x)).astype(np.float64)
            tree.fit(x, values, sample_weight=weight, check_input=False)
    return trees


class _Tree(_FanovaTree):
    """A tree as the boxes of its leaves, (leaves, parameters), with value and volume of each.

    Attributes:
        within: Variance that is left within the leaves, the mean over the ranges.
    """

    _variance: Any  # where Optuna keeps what it computed; it says None

    def __init__(self, tree: object, search_spaces: np.ndarray) -> None:
        names = ("children_left", "children_right", "feature", "threshold", "value", "impurity")
        left, right, feature, threshold, value, impurity = (getattr(tree, name) for name in names)
        low, high = (np.repeat(search_spaces[None, :, i], len(left), 0) for i in (0, 1))
        nodes = np.zeros(1, dtype=np.int64)
        while len(nodes := nodes[left[nodes] >= 0]):  # those of a depth that are split
            below, above = left[nodes], right[nodes]
            low[below], high[below] = low[nodes], high[nodes]
            low[above], high[above] = low[nodes], high[nodes]
            split = feature[nodes]
            high[below, split] = low[above, split] = threshold[nodes]
            nodes = np.concatenate((below, above))
        leaves = left < 0
        self._low, self._high = low[leaves], high[leaves]
        self._values = value[leaves, 0, 0]
        self._volumes = np.prod(self._high - self._low, axis=1)
        self._variance = _variance(self._values, self._volumes)
        self.within = float(self._volumes @ impurity[leaves] / self._volumes.sum())

    def get_marginal_variance(self, features: np.ndarray) -> float:
        """Variance of the mean over all other parameters, as the one of ``features`` changes."""
        (column,) = features
        low, high = self._low[:, column], self._high[:, column]
        edges = np.unique(np.concatenate((low, high)))
        middles, lengths = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
        inside = (low < middles[:, None]) & (middles[:, None] <= high)  # (pieces, leaves)
        areas = self._volumes / (high - low)
        across = inside @ areas
        return _variance(inside @ (areas * self._values) / across, across * lengths)


def _variance(values: np.ndarray, weights: np.ndarray) -> float:
    total = weights.sum()
    return float(weights @ (values - values @ weights / total) ** 2 / total)

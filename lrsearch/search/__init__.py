"""How choices are made: study, loop, pruning, sampling. Also ``lrsearch.search(...)``."""

from lrsearch.callable_module import make_callable

make_callable(__name__)

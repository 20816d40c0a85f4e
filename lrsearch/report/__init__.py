"""What is shown: tables, figures, page, importance. Also the function ``lrsearch.report(...)``."""

from lrsearch.callable_module import make_callable

make_callable(__name__)

"""What is shown: tables, figures, page, importance. Also the function ``lrsearch.report(...)``."""

from lrsearch.callable import make_callable

make_callable(__name__)

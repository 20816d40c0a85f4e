"""What is searched: families of schedules, a chosen member, and its trace."""

from lrsearch.schedules import families as _families  # fills FAMILIES
from lrsearch.schedules.args import BUDGET, OPTIONAL, REQUIRED, Arg, epochs_arg, factor_arg
from lrsearch.schedules.family import FAMILIES, Draw, Family, Job, get_family, register
from lrsearch.schedules.params import FixedParams, RandomParams
from lrsearch.schedules.ranges import Choice, Range, epochs_range
from lrsearch.schedules.schedule import Schedule
from lrsearch.schedules.space import Row, Space, schedules_table
from lrsearch.schedules.trace import Trace

del _families

__all__ = [
    "BUDGET",
    "FAMILIES",
    "OPTIONAL",
    "REQUIRED",
    "Arg",
    "Choice",
    "Draw",
    "Family",
    "FixedParams",
    "Job",
    "RandomParams",
    "Range",
    "Row",
    "Schedule",
    "Space",
    "Trace",
    "epochs_arg",
    "epochs_range",
    "factor_arg",
    "get_family",
    "register",
    "schedules_table",
]

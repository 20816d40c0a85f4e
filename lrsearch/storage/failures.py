"""What a database error means: wait and try again, or one line that a person can act on."""

from __future__ import annotations

from optuna.exceptions import StorageInternalError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from lrsearch.errors import LrsearchError
from lrsearch.storage.urls import redact, redact_text

_PG_TRANSIENT = frozenset(
    (
        "40001", "40P01", "55P03", "53300", "57P01", "57P02", "57P03", "08000", "08001",
        "08003", "08004", "08006",
    )
)  # fmt: skip
_MYSQL_TRANSIENT = frozenset((0, 1040, 1053, 1205, 1213, 1927, 2002, 2003, 2006, 2013, 2055))
_PERMANENT_WORDS = (
    "authentication failed",
    "does not exist",
    "pg_hba.conf",
    "no password supplied",
    "permission denied",
    "invalid connection option",
    "invalid port number",
)


def database_error(error: BaseException) -> DBAPIError | None:
    """SQLAlchemy's error inside ``error``, which may be Optuna's wrapper around it."""
    if isinstance(error, DBAPIError):
        return error
    inner = error.__cause__
    return (
        inner
        if isinstance(error, StorageInternalError) and isinstance(inner, DBAPIError)
        else None
    )


def driver_text(error: BaseException) -> str:
    """First line of what the driver said."""
    found = database_error(error)
    original = error if found is None else (found.orig or found)
    text = str(original.args[-1]) if original.args else str(original)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else type(original).__name__


def is_transient(error: BaseException) -> bool:
    """True if the same transaction may succeed later: server away, lock not free, deadlock."""
    found = database_error(error)
    if found is None or found.orig is None:
        return False
    if found.connection_invalidated:
        return True
    original = found.orig
    module = type(original).__module__.partition(".")[0]
    text = str(original)
    if module == "sqlite3":
        return "locked" in text or "busy" in text
    if module == "pymysql":
        code = original.args[0] if original.args else None
        return code in _MYSQL_TRANSIENT
    state = getattr(original, "sqlstate", None)
    if state is not None:
        return state in _PG_TRANSIENT
    # psycopg has no code for what happens before or outside a session: all of it is about the
    # connection, and worth waiting for unless the server answered with a refusal.
    is_connection = type(original).__name__ in ("OperationalError", "ConnectionTimeout")
    return is_connection and not any(word in text for word in _PERMANENT_WORDS)


def explain(error: BaseException, url: str) -> LrsearchError:
    """One line: what happened, to which database, and what to do. Never a password."""
    said = driver_text(error)
    try:
        parsed = make_url(url)
        backend, database = parsed.get_backend_name(), parsed.database
    except (ArgumentError, ValueError):
        backend, database = "", None
    if backend == "sqlite":
        line = _explain_sqlite(said, f"storage {database}")
    elif is_transient(error) or _is_refusal(error):
        line = (
            f"storage {redact(url)} cannot be reached: {said}; check host, port, database, user "
            "and password, then run the same command again: finished trials are kept"
        )
    elif "disk full" in said.lower() or "no space left" in said.lower():
        line = (
            f"storage {redact(url)}: the server's disk is full ({said}); finished trials are kept"
        )
    else:
        line = f"storage {redact(url)} refused a statement: {said}"
    return LrsearchError(redact_text(line, url))


def _is_refusal(error: BaseException) -> bool:
    """The server answered, with a no: wrong password, no such database."""
    found = database_error(error)
    if found is None or found.orig is None:
        return False
    text, original = str(found.orig), found.orig
    if type(original).__module__.startswith("pymysql"):
        return bool(original.args) and original.args[0] in (1044, 1045, 1049, 2005, 1130)
    return getattr(original, "sqlstate", None) is None and any(w in text for w in _PERMANENT_WORDS)


def _explain_sqlite(said: str, where: str) -> str:
    text = said.lower()
    if "full" in text:
        return (
            f"{where}: the disk is full; the database is intact: free some space and run the same "
            "command again"
        )
    if "readonly" in text or "read-only" in text:
        return f"{where} is read-only; make it writable or choose another with --storage"
    if "not a database" in text or "malformed" in text:
        return f"{where} is damaged or no SQLite database ({said}); choose another with --storage"
    if "unable to open" in text:
        return f"{where} cannot be opened: check that its folder exists and is writable"
    if "locked" in text:
        return (
            f"{where} was locked by another process for too long; end what holds it, or use a "
            "postgresql:// storage"
        )
    if "disk i/o" in text:
        return (
            f"{where}: the disk reports an error (full, over quota, or gone); the database keeps "
            "what was committed: check the disk and run the same command again"
        )
    return f"{where} failed: {said}"

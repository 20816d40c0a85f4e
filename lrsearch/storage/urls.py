"""Storage URLs: what is accepted, how they are shown without a password, what lies behind them."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import sqlite3
import sys
from pathlib import Path
from urllib.parse import quote, quote_plus

from sqlalchemy.dialects.sqlite import pysqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from lrsearch.errors import LrsearchError, UsageError, did_you_mean
from lrsearch.files import may, may_write

#: Dialect -> (driver, module of the driver, extra of this package that installs it).
_DRIVERS: dict[str, tuple[str, str, str]] = {
    "postgresql+psycopg": ("postgresql+psycopg", "psycopg", "postgres"),
    "postgresql": ("postgresql+psycopg", "psycopg", "postgres"),
    "postgres": ("postgresql+psycopg", "psycopg", "postgres"),
    "mysql+pymysql": ("mysql+pymysql", "pymysql", "mysql"),
    "mysql": ("mysql+pymysql", "pymysql", "mysql"),
    "mariadb+pymysql": ("mysql+pymysql", "pymysql", "mysql"),
    "mariadb": ("mysql+pymysql", "pymysql", "mysql"),
}
_OF_SQLITE = ("timeout", "detect_types", "check_same_thread", "cached_statements", "uri")
"""What may stand behind ? in the URL of a file."""
_SQLITE = ("sqlite", "sqlite+pysqlite")
_NETWORK_FILE_SYSTEMS = frozenset(
    (
        "nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "afs", "ncpfs", "9p", "lustre",
        "gpfs", "beegfs", "ceph", "fuse.ceph", "glusterfs", "fuse.glusterfs", "fuse.sshfs",
        "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "pvfs2", "orangefs", "panfs",
    )
)  # fmt: skip
_SECRET_IN_QUERY = re.compile(
    r"((?:password|passwd|sslpassword|ssl_key_password)=)[^&\s'\"]*", re.I
)
_SECRET_IN_URL = re.compile(r"(\w[\w+.-]*://[^\s:/@]*):[^\s]*@")


def redact(url: str) -> str:
    """The URL with every password in it replaced by ``***``.

    Example:
        >>> redact("postgresql+psycopg://me:secret@db/lrsearch")
        'postgresql+psycopg://me:***@db/lrsearch'
    """
    return _SECRET_IN_QUERY.sub(r"\1***", _SECRET_IN_URL.sub(r"\1:***@", url))


def redact_text(text: str, url: str) -> str:
    """``text`` (an error of a driver) without the passwords of ``url``, in any spelling."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is not None:
        secrets = [str(parsed.password)] if parsed.password else []
        for key, value in parsed.query.items():
            if "passw" in key.lower():
                secrets += [value] if isinstance(value, str) else list(value)
        for secret in secrets:
            for spelling in sorted({secret, quote(secret), quote_plus(secret)}, key=len)[::-1]:
                edge = r"\b" if spelling.isalnum() and len(spelling) < 6 else ""  # "se" in "user"
                text = re.sub(f"{edge}{re.escape(spelling)}{edge}", "***", text)
    return redact(text)


def parse_storage_url(url: str) -> URL:
    """Check a storage URL and name its driver; nothing is opened.

    Args:
        url: ``sqlite:///FILE``, ``postgresql+psycopg://USER:PASSWORD@HOST/DATABASE`` or
            ``mysql+pymysql://USER:PASSWORD@HOST/DATABASE``.

    Raises:
        UsageError: If it is no URL, of a database that is not supported, or its driver is not
            installed.
    """
    try:
        return _parsed(url)
    except UsageError as error:
        if url and url == os.environ.get("LRSEARCH_STORAGE"):
            raise UsageError(f"{error} (it stands in $LRSEARCH_STORAGE)") from None
        raise


def _check_arguments(parsed: URL) -> None:
    """Refuse what the URL of a file has besides the file, and what has no effect."""
    shown = parsed.render_as_string()
    strange = [key for key in parsed.query if key not in _OF_SQLITE]
    if strange and "uri" not in parsed.query:
        raise UsageError(
            f"storage {shown}: {strange[0]!r} has no effect (valid: {', '.join(_OF_SQLITE)}); "
            "take it out"
        )
    twice = [key for key, value in parsed.query.items() if not isinstance(value, str)]
    if twice:
        raise UsageError(f"storage {shown}: {twice[0]} stands there twice; leave one of them out")
    try:
        pysqlite.dialect().create_connect_args(parsed)
    except (ArgumentError, TypeError, ValueError) as error:
        why = str(error).partition("\n")[0]
        raise UsageError(f"storage {shown}: {why}; write sqlite:///FILE?timeout=SECONDS") from None


def _parsed(url: str) -> URL:
    examples = "sqlite:///lrsearch.db, postgresql+psycopg://..., mysql+pymysql://..."
    if not isinstance(url, str):
        raise UsageError(f"storage must be a URL, got {url!r:.60} ({examples})")
    if "://" not in url:
        shown, near = redact(url), f"sqlite:///{url}" if url.strip() else "sqlite:///lrsearch.db"
        server, slashes, rest = url.partition("//")
        if slashes and server.rstrip(":").lower() in _DRIVERS:  # a colon is missing
            near = redact(f"{server.rstrip(':')}://{rest}")
            shown = near.replace("://", "//", 1)
        raise UsageError(f"storage {shown!r} is no URL — did you mean {near}? ({examples})")
    scheme = url.split("://", 1)[0].lower()
    if scheme not in _DRIVERS and scheme not in _SQLITE:
        names = ["sqlite", "postgresql+psycopg", "mysql+pymysql"]
        near_name = did_you_mean(scheme, names)
        question = f" — did you mean {near_name}://?" if near_name else ""
        raise UsageError(f"storage: unknown database {scheme!r}{question} (valid: {examples})")
    try:
        parsed = make_url(scheme + "://" + url.split("://", 1)[1])
    except (ArgumentError, NoSuchModuleError, ValueError):
        parsed = None
    if parsed is None or "@" in (parsed.host or ""):
        raise UsageError(
            f"storage URL {redact(url)} cannot be read; special characters in a password are "
            "written as %XX (@ is %40, / is %2F, : is %3A)"
        )
    if scheme in _SQLITE:
        if parsed.database in (None, "", ":memory:"):
            raise UsageError(
                f"storage {url} is memory, which ends with the process; name a file: "
                "sqlite:///lrsearch.db"
            )
        _check_arguments(parsed)
        return parsed.set(database=os.path.expanduser(parsed.database))
    driver, module, extra = _DRIVERS[scheme]
    if importlib.util.find_spec(module) is None:
        raise UsageError(
            f"storage {redact(url)} needs the driver {module}, which is not installed: "
            f"pip install 'lrsearch[{extra}]'"
        )
    if not parsed.database:
        raise UsageError(f"storage URL {redact(url)} names no database: end it with /NAME")
    return parsed.set(drivername=driver)


def sqlite_file(url: URL) -> Path | None:
    """The file of an SQLite URL; None for one in memory and for other databases."""
    if not url.drivername.startswith("sqlite"):
        return None
    name = url.database
    return None if name is None or name.startswith("file:") else Path(name)


def check_storage(url: str) -> None:
    """Say what is wrong with a URL or its SQLite file before anything is made or loaded.

    Raises:
        UsageError: The URL is wrong, its driver or its folder is missing.
        LrsearchError: The file is read-only or no SQLite file.
    """
    path = sqlite_file(parse_storage_url(url))
    if path is not None:
        check_sqlite_file(path, create=True)


def check_sqlite_file(path: Path, *, create: bool) -> None:
    """Say clearly why an SQLite file cannot be used, before SQLite says it unclearly.

    Raises:
        UsageError: If its folder is missing, or it is a folder itself.
        LrsearchError: If it is missing (and not to be created), read-only, or no SQLite file.
    """
    folder = path.resolve().parent
    if path.is_dir():
        raise UsageError(f"storage {path} is a folder; name a file in it: {path / 'lrsearch.db'}")
    if not folder.is_dir():
        raise UsageError(
            f"storage: the folder {folder} does not exist; make it: mkdir -p {folder}"
        )
    if not path.exists():
        if not create:
            raise LrsearchError(
                f"storage {path} does not exist; lrsearch run makes one, --storage names another"
            )
        if not may_write(folder):
            raise LrsearchError(
                f"storage: the folder {folder} is read-only for this user; choose a file "
                "elsewhere with --storage sqlite:////PATH/lrsearch.db"
            )
        return
    if not may(path, os.R_OK):
        raise LrsearchError(f"storage {path} cannot be read: permission denied")
    if not _is_sqlite(path):
        raise LrsearchError(
            f"storage {path} is not an SQLite database, or a damaged one; choose another file "
            "with --storage"
        )
    if create and not is_writable(path):
        what = f"the folder {folder}" if may(path, os.W_OK) else f"the file {path}"
        raise LrsearchError(
            f"storage: {what} is read-only for this user; make it writable (SQLite also writes "
            "beside its file), or choose another with --storage"
        )


def _is_sqlite(path: Path) -> bool:
    """Whether a file is a database of SQLite's, or empty.

    Asked of SQLite: to open and close the file ourselves would take away, under POSIX, the locks
    of all connections that this process has to it. The next process that leaves then takes itself
    for the last one, and removes the log in which those go on writing.
    """
    try:
        _look(path, "rw")
    except sqlite3.Error as error:  # what else is wrong is said when it is opened in earnest
        return "not a database" not in str(error)
    return True


def is_shared(path: Path) -> bool:
    """Whether SQLite can read a file that this user may not write, with what is in its log."""
    try:
        _look(path, "ro")
    except sqlite3.Error as error:
        return "locked" in str(error)
    return True


def _look(path: Path, mode: str) -> None:
    uri = f"file:{quote(os.fsencode(path.resolve()))}?mode={mode}"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=0)) as connection:
        connection.execute("PRAGMA schema_version")


def is_writable(path: Path) -> bool:
    """Whether this user may write the SQLite file ``path`` and the files beside it."""
    return may(path, os.W_OK) and may_write(path.resolve().parent)


def network_file_system(path: Path, mounts: str | None = None) -> str | None:
    """Type of the network file system ``path`` lies on, or None.

    Args:
        path: A file or folder, which need not exist.
        mounts: Text of ``/proc/mounts``; read from there if None (Linux only: None elsewhere).
    """
    if mounts is None:
        if not sys.platform.startswith("linux"):
            return None
        try:
            mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
    target = path.resolve()
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[1]))
        if (target == point or point in target.parents) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[2]
    return kind if kind in _NETWORK_FILE_SYSTEMS else None

"""``lrsearch dashboard``: optuna-dashboard on this machine, with our figures and the answer in it.

Optuna's dashboard shows any study of the database. Into a study of ours go, as the dashboard's own
study-level plots and note, the figures of the report and the answer in words; each trial gets its
learning-rate curve as an image, drawn when it is looked at.
"""

from __future__ import annotations

import socketserver
import sys
import threading
import warnings
import wsgiref.simple_server
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import optuna

from lrsearch.attributes import CONFIRM_SUFFIX
from lrsearch.dashboard_study import Pictures, prepare
from lrsearch.errors import LrsearchError
from lrsearch.report import fanova  # noqa: F401 - it has Optuna leave most of scikit-learn out
from lrsearch.report.status import studies
from lrsearch.storage.engine import Storage

StartResponse = Callable[..., Any]
App = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]
REFRESH_SECONDS = 20.0


@dataclass
class Dashboard:
    """A dashboard that is being served.

    Attributes:
        url: Where a browser finds it.
        server: Serves until ``shutdown``.
        closed: Set when it serves no more.
    """

    url: str
    server: wsgiref.simple_server.WSGIServer
    closed: threading.Event

    def run(self) -> None:
        """Serve until Ctrl-C."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the dashboard's own plots warn of small studies
            try:
                self.server.serve_forever(poll_interval=0.2)
            except KeyboardInterrupt:
                sys.stderr.write("\n")
            finally:
                self.closed.set()
                self.server.server_close()


class _Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True


class _QuietHandler(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """A line per request helps nobody."""


def open_dashboard(storage: Storage, name: str | None, port: int) -> Dashboard:
    """Bind the dashboard of a database to this machine (127.0.0.1) and no other.

    Args:
        storage: The database.
        name: A study to fill with figures, and to open; None: all of ours are filled, those that
            begin later, too.
        port: 0 takes a free one.

    Raises:
        LrsearchError: The port is taken.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from optuna_dashboard import wsgi  # after fanova

    named = [s for s in storage.get_all_studies() if s.study_name == name]
    pictures = Pictures(storage)
    filler = _Filler(storage, pictures, name)
    app = guarded(wsgi(storage, artifact_store=pictures))
    try:
        server = wsgiref.simple_server.make_server(
            "127.0.0.1", port, app, server_class=_Server, handler_class=_QuietHandler
        )
    except OSError as error:
        raise LrsearchError(
            f"port {port} cannot be used ({error.strerror}); choose another with --port"
        ) from None
    filler.fill()
    filler.start()
    url = f"http://127.0.0.1:{server.server_port}/dashboard/"
    if named:
        url += f"studies/{named[0]._study_id}"
    return Dashboard(url, server, filler.closed)


class _Filler(threading.Thread):
    """Fills studies until closed: again with each tenth more of their trials, and at the end.

    Also where another study has taken the name.
    """

    def __init__(self, storage: Storage, pictures: Pictures, name: str | None = None) -> None:
        super().__init__(daemon=True)
        self._storage, self._pictures, self._name = storage, pictures, name
        self._seen: dict[str, tuple[int, int, str | None]] = {}
        self._told: dict[str, str] = {}
        self.closed = threading.Event()

    def fill(self) -> None:
        """Whatever is wrong with one is told, once, and the others are filled."""
        rows = studies(self._storage)  # counts alone: to read all trials takes a second
        finished = {r["study"]: r["complete"] + r["pruned"] + r["failed"] for r in rows}
        at_work = {row["study"] for row in rows if row["running"]}
        for row in rows:
            name, again = row["study"], f"{row['study']}{CONFIRM_SUFFIX}"
            now = finished[name], finished.get(again, 0), row["last"]
            before = self._seen.get(name, (-1, -1, None))
            news = any(not b <= a <= 1.1 * b for a, b in zip(now[:2], before[:2], strict=True))
            news = news or (now != before and not at_work & {name, again})
            if not row["ours"] or self._name not in (None, name) or not news:
                continue
            try:
                self._fill(name)
                self._seen[name] = now
            except Exception as error:  # noqa: BLE001 - told below; a dashboard must not end by it
                self._tell(name, f"study {name} is shown without our figures: {_said(error)}")

    def _tell(self, about: str, line: str) -> None:
        if self._told.get(about) != line:
            sys.stderr.write(f"{line}\n")
        self._told[about] = line

    def _fill(self, name: str) -> None:
        try:
            study = optuna.load_study(study_name=name, storage=self._storage)
        except KeyError:  # deleted, perhaps in this dashboard
            return
        self._pictures.add(prepare(study, self._storage))

    def run(self) -> None:
        while not self.closed.wait(REFRESH_SECONDS):
            try:
                self.fill()
            except LrsearchError as error:  # a database that is away for a while
                self._tell("", f"what is shown is not the newest: {error}")


def _said(error: Exception) -> str:
    """An error in a line; of what is our bug its kind, too."""
    return f"{error}" if isinstance(error, LrsearchError) else f"{type(error).__name__}: {error}"


def guarded(app: App) -> App:
    """The app, for requests that name this machine and come from its own pages only.

    A page of another site could else reach it through a name that it lets point here.
    """

    def checked(environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        host = str(environ.get("HTTP_HOST", "")).rsplit(":", 1)[0]
        origin = str(environ.get("HTTP_ORIGIN", ""))
        ours = origin in ("", f"http://{environ.get('HTTP_HOST', '')}")
        if host not in ("127.0.0.1", "localhost", "[::1]") or not ours:
            start("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"this dashboard answers to 127.0.0.1 only"]
        return app(environ, start)

    return checked

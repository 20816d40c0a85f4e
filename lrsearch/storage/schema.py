"""Optuna's tables and ours, made once however many processes start together."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages._rdb import models
from sqlalchemy import (
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    bindparam,
    event,
    inspect,
    select,
    text,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import DDL
from sqlalchemy.sql.expression import FunctionElement

from lrsearch.errors import LrsearchError
from lrsearch.imports import postponed

with postponed("mako.template"), postponed("mako.exceptions"):  # for new scripts only
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

#: Version of our own tables; a database made with another one is refused.
VERSION = 1

STUDIES: Table = models.StudyModel.__table__
STUDY_ATTRIBUTES: Table = models.StudyUserAttributeModel.__table__
TRIALS: Table = models.TrialModel.__table__
TRIAL_VALUES: Table = models.TrialValueModel.__table__
USER_ATTRIBUTES: Table = models.TrialUserAttributeModel.__table__
SYSTEM_ATTRIBUTES: Table = models.TrialSystemAttributeModel.__table__
PARAMS: Table = models.TrialParamModel.__table__
INTERMEDIATE: Table = models.TrialIntermediateValueModel.__table__

metadata = MetaData()

VERSIONS = Table("lrsearch_version", metadata, Column("version", Integer, primary_key=True))

HISTORY = Table(
    "lrsearch_history",
    metadata,
    Column(
        "trial_id",
        Integer,
        ForeignKey(TRIALS.c.trial_id, ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("lr", Double),
    Column("train_loss", Double),
    Column("val_loss", Double),
    Column("val_metric", Double),
    Column("avg_val_loss", Double),
    Column("avg_val_metric", Double),
    Column("seconds", Double),
    sqlite_with_rowid=False,
)

SLOTS = Table(
    "lrsearch_slots",
    metadata,
    Column(
        "study_id",
        Integer,
        ForeignKey(STUDIES.c.study_id, ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("slot", Integer, primary_key=True, autoincrement=False),
    Column("trial_id", Integer, ForeignKey(TRIALS.c.trial_id, ondelete="CASCADE"), unique=True),
    Column("owner", String(255)),
    Column("beat", Double, nullable=False),
    Column("epoch", Integer, nullable=False, default=0),
    Column("attempts", Integer, nullable=False, default=0),
    Column("finished", SmallInteger, nullable=False, default=0),
    Column("error", Text),
    Index("lrsearch_slots_open", "study_id", "finished"),
    Index("lrsearch_slots_owner", "owner", "finished"),
)

# SQLite enforces foreign keys only where a connection asks for it, and gives a deleted study's
# numbers to the next one: triggers hold for every program that deletes.
for _parent, _key, _child in (
    ("trials", "trial_id", "lrsearch_history"),
    ("trials", "trial_id", "lrsearch_slots"),
    ("studies", "study_id", "lrsearch_slots"),
):
    event.listen(
        metadata,
        "after_create",
        DDL(  # type: ignore[no-untyped-call]
            f"CREATE TRIGGER IF NOT EXISTS {_child}_{_parent}_deleted AFTER DELETE ON {_parent} "
            f"BEGIN DELETE FROM {_child} WHERE {_key} = OLD.{_key}; END"
        ).execute_if(dialect="sqlite"),
    )


class server_now(FunctionElement[float]):  # noqa: N801
    """The database's clock in seconds since 1970: one clock for all machines."""

    type = Double()
    inherit_cache = True


@compiles(server_now, "sqlite")
def _sqlite_now(element: object, compiler: object, **kwargs: object) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(server_now, "postgresql")
def _postgresql_now(element: object, compiler: object, **kwargs: object) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS double precision)"


@compiles(server_now, "mysql", "mariadb")
def _mysql_now(element: object, compiler: object, **kwargs: object) -> str:
    return "CAST(UNIX_TIMESTAMP(SYSDATE(6)) AS DOUBLE)"


class SchemaMismatch(Exception):  # noqa: N818
    """The tables are there, but not those this version works with; the text is for a person."""


def is_current(engine: Engine) -> bool:
    """True if all tables are there, False if some are missing.

    Raises:
        SchemaMismatch: If tables of those names belong to something else or to another version.
    """
    with engine.connect() as connection:
        return _is_current(connection)


def _is_current(connection: Connection) -> bool:
    inspector = inspect(connection)
    names = set(inspector.get_table_names())
    if "version_info" not in names:
        for table in models.BaseModel.metadata.sorted_tables:
            if table.name not in names:
                continue
            columns = {column["name"] for column in inspector.get_columns(table.name)}
            if not {column.name for column in table.columns} <= columns:
                raise SchemaMismatch(
                    f"its table {table.name!r} belongs to another program; choose another database"
                )
        return False
    if "alembic_version" not in names:
        return False
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is None:
        return False
    head = _head_revision()
    if revision != head:
        known = {script.revision for script in _scripts().walk_revisions()}
        made_by = connection.execute(
            select(models.VersionInfoModel.__table__.c.library_version)
        ).scalar()
        cure = (
            "optuna storage upgrade --storage URL"
            if revision in known
            else "pip install -U lrsearch optuna"
        )
        raise SchemaMismatch(
            f"its tables are of another Optuna ({made_by}, schema {revision}); this is Optuna "
            f"{optuna.__version__} with schema {head}: {cure}"
        )
    if not set(metadata.tables) <= names:
        return False
    version = connection.execute(select(VERSIONS.c.version)).scalar()
    if version is not None and version != VERSION:
        raise SchemaMismatch(
            f"its lrsearch tables have version {version}, this lrsearch knows {VERSION}: "
            "pip install -U lrsearch, or choose another database"
        )
    return version is not None


def is_optunas(engine: Engine) -> bool:
    """Whether Optuna's own tables are there, as a plain Optuna script makes them."""
    names = set(inspect(engine).get_table_names())
    return {"alembic_version", *models.BaseModel.metadata.tables} <= names


def create_schema(engine: Engine) -> None:
    """Make what is missing, however many processes do so at once.

    One at a time: SQLite's write lock, an advisory lock on PostgreSQL, a named lock on MySQL. A
    process killed in between leaves nothing (MySQL: something that the next one completes).

    Raises:
        SchemaMismatch: As `is_current`.
    """
    with engine.connect() as connection:
        on_mysql = connection.dialect.name in ("mysql", "mariadb")
        if on_mysql:
            connection.execute(text("SELECT GET_LOCK('lrsearch_schema', 60)"))
            connection.commit()
        try:
            with connection.begin():
                if connection.dialect.name == "postgresql":
                    connection.execute(text("SELECT pg_advisory_xact_lock(7305804402)"))
                if not _is_current(connection):
                    _create_missing(connection)
        finally:
            if on_mysql:
                connection.execute(text("SELECT RELEASE_LOCK('lrsearch_schema')"))
                connection.commit()


def _create_missing(connection: Connection) -> None:
    models.BaseModel.metadata.create_all(connection)
    info = models.VersionInfoModel.__table__
    if connection.execute(select(info.c.version_info_id)).first() is None:
        connection.execute(
            info.insert().values(
                version_info_id=1,
                schema_version=models.SCHEMA_VERSION,
                library_version=optuna.__version__,
            )
        )
    context = MigrationContext.configure(connection)
    if context.get_current_revision() is None:
        context.stamp(_scripts(), _head_revision())
    metadata.create_all(connection)
    if connection.execute(select(VERSIONS.c.version)).first() is None:
        connection.execute(VERSIONS.insert().values(version=VERSION))


@functools.cache
def _scripts() -> ScriptDirectory:
    """Optuna's migrations: the first question to them runs each, so one object answers all."""
    return ScriptDirectory(str(Path(models.__file__).parent / "alembic"))


def _head_revision() -> str:
    """Optuna's schema version."""
    head = _scripts().get_current_head()
    assert head is not None
    return head


def upsert(
    connection: Connection, table: Table, keys: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Insert ``rows``; where ``keys`` (a unique constraint) are taken, replace the rest."""
    if rows:
        statement = _upsert(connection.dialect.name, table, tuple(keys), tuple(rows[0]))
        connection.execute(statement, list(rows))


@functools.cache
def _upsert(dialect: str, table: Table, keys: tuple[str, ...], names: tuple[str, ...]) -> Any:
    changed = [name for name in names if name not in keys]
    if dialect in ("mysql", "mariadb"):
        statement = mysql.insert(table)
        return statement.on_duplicate_key_update(
            {name: statement.inserted[name] for name in changed}
        )
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    given: Any = insert(table)
    return given.on_conflict_do_update(
        index_elements=[table.c[key] for key in keys],
        set_={name: given.excluded[name] for name in changed},
    )


# Statements that run for every trial or epoch are built once: SQLAlchemy takes four times as long
# for one that it has not seen as an object before.
_LOCK = (
    select(STUDIES.c.study_id).where(STUDIES.c.study_id == bindparam("study_id")).with_for_update()
)


def lock_study(connection: Connection, study_id: int) -> None:
    """Wait for the study's row: whoever numbers its trials or hands out its slots does so alone.

    On SQLite the write transaction itself is that lock.

    Raises:
        LrsearchError: If there is no such study (any more).
    """
    found = connection.execute(_LOCK, {"study_id": study_id}).first()
    if found is None:
        raise LrsearchError(f"the study was deleted (number {study_id}); start it again")


def delete_study_rows(connection: Connection, study_id: int) -> None:
    """Delete a study and all that hangs on it, a statement a table.

    Optuna makes an object of each row first: 0.7 GB for 5,000 trials of 100 epochs.

    Raises:
        KeyError: There is no such study, as of Optuna.
    """
    if connection.execute(_LOCK, {"study_id": study_id}).first() is None:
        raise KeyError(models.NOT_FOUND_MSG)
    there = set(inspect(connection).get_table_names())
    mine = select(TRIALS.c.trial_id).where(TRIALS.c.study_id == study_id)
    every = (*models.BaseModel.metadata.sorted_tables, *metadata.sorted_tables)
    for table in reversed([table for table in every if table.name in there]):
        if "study_id" in table.c:
            connection.execute(table.delete().where(table.c.study_id == study_id))
        elif "trial_id" in table.c:
            connection.execute(table.delete().where(table.c.trial_id.in_(mine)))

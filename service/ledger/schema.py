"""Tables of a ledger, and how its database is opened.

`entries` is the chain. Salts and texts stand in a table of their own, since they can be erased;
`head` is the newest hash, locked by whoever appends; `feedback` is beside the chain. SQLite runs in
WAL mode and flushes at every commit; PostgreSQL is named by its URL.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from influence.errors import AttributionError, InvalidInput, LedgerUnavailable

metadata = MetaData()
# SQLite makes only an INTEGER key the row itself; of a BIGINT it keeps a second index.
_Sequence = BigInteger().with_variant(Integer, "sqlite")

entries = Table(
    "entries",
    metadata,
    Column("sequence", _Sequence, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),
    Column("key", String(200), nullable=False, unique=True),
    Column("time_us", BigInteger, nullable=False, index=True),
    Column("body", Text, nullable=False),
    Column("weight", Double),
    Column("owner_set", BigInteger),
    Column("totals", LargeBinary),
    Column("hash", LargeBinary(32), nullable=False),
)
# The few entries that are no attributions are asked for all the time.
Index(
    "ix_entries_events",
    entries.c.sequence,
    sqlite_where=entries.c.kind != "attribution",
    postgresql_where=entries.c.kind != "attribution",
)

texts = Table(
    "texts",
    metadata,
    Column("sequence", _Sequence, primary_key=True, autoincrement=False),
    Column("salt", LargeBinary(16), nullable=False),
    Column("text", Text),
)

head = Table(
    "head",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("time_us", BigInteger, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
)

# What people thought, beside the chain.
feedback = Table(
    "feedback",
    metadata,
    Column("caller", String(200), primary_key=True),
    Column("request_id", String(128), primary_key=True),
    Column("document_id", String(1_000), primary_key=True),
    Column("passage_id", String(1_000), primary_key=True),
    Column("verdict", String(8), nullable=False),
    Column("note", Text, nullable=False),
    Column("time_us", BigInteger, nullable=False, index=True),
)

_BUSY_MS = 30_000
_MIGRATION_LOCK = 0x77686E63  # one process at a time changes the schema on PostgreSQL


def ledger_url(text: str) -> URL:
    """The URL of a ledger; a bare path is a SQLite file.

    Raises:
        InvalidInput: It is no URL of a database that a ledger can be in.
    """
    if "://" not in text:
        return URL.create("sqlite", database=text)
    try:
        url = make_url(text)
        if url.drivername in ("postgres", "postgresql"):
            url = url.set(drivername="postgresql+psycopg")
        url.get_dialect()
    except (ArgumentError, NoSuchModuleError) as error:
        raise InvalidInput(
            f"{text!r} is no address of a ledger. Give the path of a SQLite file, or "
            "postgresql://USER@HOST/NAME."
        ) from error
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise InvalidInput(
            f"A ledger cannot be in {url.get_backend_name()}. Give the path of a SQLite file, or "
            "postgresql://USER@HOST/NAME."
        )
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise InvalidInput("A ledger in memory would be lost. Give the path of a SQLite file.")
    return url


def open_database(text: str, *, create: bool) -> Engine:
    """Connect to a ledger and bring its tables to this version.

    Args:
        text: URL or path.
        create: Whether a SQLite file that is not there is made.

    Raises:
        InvalidInput: No URL of a ledger.
        LedgerUnavailable: It cannot be reached, is not there, or is of a newer version.
    """
    url = ledger_url(text)
    if url.get_backend_name() == "sqlite":
        path = Path(str(url.database))
        if not create and not path.is_file():
            raise LedgerUnavailable(
                f"There is no ledger at {path}. `whence serve` writes one where WHENCE_LEDGER_URL "
                "says."
            )
    engine = create_engine(url, hide_parameters=True)
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    try:
        with database_errors(url):
            _migrate(engine)
    except AttributionError:
        engine.dispose()
        raise
    return engine


@contextmanager
def database_errors(url: URL) -> Iterator[None]:
    """Turn what a database says into one sentence that names it, without its password.

    Raises:
        LedgerUnavailable: It cannot be reached, read or written.
    """
    try:
        yield
    except DBAPIError as error:
        reason = " ".join(str(error.orig).split())[:300]
        raise LedgerUnavailable(
            f"The ledger {url.render_as_string()} cannot be used: {reason}. See that the database "
            "runs, has room, and lets this user in."
        ) from error


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that will write: SQLite takes its lock at the beginning, not half-way."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        yield connection


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where we say so, in `_begin_sqlite`
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # a commit is on the disk when it returns
    cursor.execute("PRAGMA secure_delete = ON")  # what is erased is overwritten
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _migrate(engine: Engine) -> None:
    # Alembic takes a third of a second to import, and most commands have no need of it.
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option(
        "script_location", str(Path(__file__).parent / "migrations").replace("%", "%%")
    )
    newest = ScriptDirectory.from_config(config).get_current_head()
    with engine.connect() as connection:
        if MigrationContext.configure(connection).get_current_revision() == newest:
            return
    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise LedgerUnavailable(
                f"The ledger {engine.url.render_as_string()} was written by a newer version of "
                f"Whence ({error}). Upgrade Whence."
            ) from error

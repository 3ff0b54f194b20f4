"""The chain, the texts beside it, its head."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "entries",
        sa.Column("sequence", _SEQUENCE, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("key", sa.String(200), nullable=False, unique=True),
        sa.Column("time_us", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("weight", sa.Double),
        sa.Column("owner_set", sa.BigInteger),
        sa.Column("totals", sa.LargeBinary),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
    )
    op.create_index("ix_entries_time_us", "entries", ["time_us"])
    op.create_index(
        "ix_entries_events",
        "entries",
        ["sequence"],
        sqlite_where=sa.text("kind != 'attribution'"),
        postgresql_where=sa.text("kind != 'attribution'"),
    )
    op.create_table(
        "texts",
        sa.Column("sequence", _SEQUENCE, primary_key=True, autoincrement=False),
        sa.Column("salt", sa.LargeBinary(16), nullable=False),
        sa.Column("text", sa.Text),
    )
    op.create_table(
        "head",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("time_us", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
    )
    op.execute(
        sa.text(
            "INSERT INTO head (id, sequence, time_us, hash) VALUES (1, 0, 0, :genesis)"
        ).bindparams(sa.bindparam("genesis", bytes(32), sa.LargeBinary))
    )

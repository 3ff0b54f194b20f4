"""`whence valuations` and `whence payout`: what owners are worth, and what they are paid."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.ledger import Url, opened

if TYPE_CHECKING:
    from service.engine import Engine
    from service.valuation.statement import Terms

Period = Annotated[str, typer.Option(help="2026-10, 2026, or 2026-10-01..2026-10-15; UTC.")]


class Policy(StrEnum):
    """What a pool is divided in proportion to."""

    SHAPLEY = "shapley"
    POSITIVE_SHARE = "positive-share"
    FLAT = "flat"


def valuations(url: Url, period: Period) -> None:
    """What owners are worth in a period, as JSON: the figures of `GET /valuations`."""
    from service.ledger.chain import canonical
    from service.valuation.report import valuations as report

    with opened(url) as ledger:
        typer.echo(canonical(report(ledger, period)))


def payout(
    url: Url,
    period: Period,
    pool: Annotated[str, typer.Option(help="What is divided, as 100000 or 1000.50.")],
    policy: Annotated[Policy, typer.Option(help="In proportion to what.")] = Policy.SHAPLEY,
    floor: Annotated[str, typer.Option(help="What every owner gets at least.")] = "0",
    cap_per_document: Annotated[
        str | None, typer.Option(help="What an owner gets at most for each document.")
    ] = None,
    min_payment: Annotated[
        str, typer.Option(help="What is less is carried forward to the next statement.")
    ] = "0",
    fold_duplicates: Annotated[
        bool, typer.Option("--fold-duplicates", help="Near-duplicates count nothing.")
    ] = False,
    norm_cap: Annotated[
        float | None, typer.Option(help="No vector counts as longer than so many medians.")
    ] = None,
    relative: Annotated[
        bool, typer.Option("--relative", help="Relative influence in place of nats.")
    ] = False,
    normalise_answers: Annotated[
        bool, typer.Option("--normalise-answers", help="No answer speaks louder than another.")
    ] = False,
    equal_keys: Annotated[
        bool, typer.Option("--equal-keys", help="All API keys weigh the same.")
    ] = False,
    index: Annotated[
        Path | None,
        typer.Option(help="The index that answered: for the cap, and where passages count anew."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Its model; the one that it names by default.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for statement.json, .csv and .html.")
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="It is paid: make it an entry of the ledger.")
    ] = False,
) -> None:
    """Divide a pool among the owners, to the cent."""
    from influence.atomic import storage_errors, write_bytes
    from service.valuation.allocation import parse_money
    from service.valuation.page import to_html
    from service.valuation.statement import (
        Terms,
        make_statement,
        record_statement,
        to_csv,
        to_json,
    )

    cap = cap_per_document
    terms = Terms(
        pool=parse_money(pool, what="The pool", least=1),
        policy=policy.value,
        floor=parse_money(floor, what="The floor"),
        cap_per_document=None if cap is None else parse_money(cap, what="The cap"),
        min_payment=parse_money(min_payment, what="The least payment"),
        fold_duplicates=fold_duplicates,
        norm_cap=norm_cap,
        relative=relative,
        normalise_answers=normalise_answers,
        equal_keys=equal_keys,
    )
    with opened(url) as ledger, _engine(index, model, terms) as engine:
        documents = None if index is None else _documents(index, terms)
        statement = make_statement(ledger, period, terms, documents=documents, engine=engine)
        if record:
            record_statement(ledger, statement, now_us=time.time_ns() // 1000)
    if out is not None:
        with storage_errors(out):
            out.mkdir(parents=True, exist_ok=True)
        for ending, render in (("json", to_json), ("csv", to_csv), ("html", to_html)):
            write_bytes(out / f"statement.{ending}", render(statement).encode())
    typer.echo(to_json(statement), nl=False)


@contextmanager
def _engine(index: Path | None, model: str | None, terms: "Terms") -> "Iterator[Engine | None]":
    """The engine that asks anew, where the terms need one."""
    from service.valuation.counting import Counting

    if index is None or terms.counting == Counting():
        yield None
        return
    from service.engine import Engine

    engine = Engine.load(index, model)
    try:
        yield engine
    finally:
        engine.close()


def _documents(index: Path, terms: "Terms") -> dict[str, int]:
    """Documents of each owner that count for something."""
    from influence.store import IndexReader

    reader = IndexReader.open(index)
    found: dict[str, set[str]] = {}
    lengths = terms.counting.lengths(reader)
    for row, owner in enumerate(reader.row_owners.tolist()):
        if lengths[row] > 0:
            found.setdefault(owner, set()).add(reader.passage(row).document_id)
    return {owner: len(documents) for owner, documents in found.items()}

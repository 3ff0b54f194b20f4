"""`whence value`: what documents are worth for a validation set, or were in a period."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from influence.errors import CorpusError

if TYPE_CHECKING:
    import numpy as np

    from service.engine import Engine
    from service.schemas import AttributeRequest


class By(StrEnum):
    """What totals are summed over."""

    DOCUMENT = "document"
    OWNER = "owner"
    SOURCE = "source"


def value(
    index: Annotated[Path, typer.Argument(help="The index folder.")],
    validation: Annotated[
        Path | None,
        typer.Option(help="JSON lines, each with a prompt and a response.", exists=True),
    ] = None,
    url: Annotated[
        str | None, typer.Option("--ledger", help="In place of VALIDATION: what was asked.")
    ] = None,
    period: Annotated[
        str | None, typer.Option(help="Of the ledger: 2026-10, 2026, 2026-10-01..2026-10-15.")
    ] = None,
    by: Annotated[By, typer.Option(help="What a line is for.")] = By.DOCUMENT,
    model: Annotated[
        str | None, typer.Option(help="The model; the one that the index names by default.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="File for the ids of the documents to keep, one a line.")
    ] = None,
    drop: Annotated[
        Path | None, typer.Option(help="File for the ids of the others, one a line.")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Folder for what is kept, as a Hugging Face dataset.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Keep at most so many, the most helpful.")
    ] = None,
    at_least: Annotated[
        float | None, typer.Option(help="Keep what has this influence in nats, or more.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, spread …")] = "auto",
    dtype: Annotated[
        str, typer.Option(help="float32 or bfloat16; auto: that of the index.")
    ] = "auto",
) -> None:
    """Rank all documents by their influence on VALIDATION, or on what was asked in a PERIOD.

    Every line is JSON. Of a period these are exact totals in the weights of the ledger, by the
    linear utility; it needs the texts (WHENCE_LEDGER_TEXTS) and the version that answered.
    """
    if (validation is None) == (url is None) or (url is None) != (period is None):
        raise typer.BadParameter("give --validation, or --ledger and --period", param_hint="value")
    requests = [] if validation is None else _requests(validation)
    from service.engine import Engine
    from service.ledger.chain import canonical
    from service.valuation.curation import Export
    from service.valuation.ranking import grouped, kept, rank_documents

    export = Export(keep, drop, dataset)
    export.check()
    engine = Engine.load(index, model, device=device, dtype=dtype)
    try:
        if url is not None and period is not None:
            query_sum = _asked(engine, url, period)
        else:
            query_sum = _validated(engine, requests)
        ranked = rank_documents(engine.reader, query_sum)
        if export != Export():
            export.write(engine.reader, kept(ranked, budget=budget, at_least=at_least))
    finally:
        engine.close()
    kind = "owner" if by is By.OWNER else "source"
    for one in ranked if by is By.DOCUMENT else grouped(ranked, by=kind):
        typer.echo(canonical(vars(one)))


def _asked(engine: "Engine", url: str, period: str) -> "np.ndarray":
    """The summed vector of what was asked in a period, ``[D]``."""
    from cli.ledger import opened
    from service.valuation.periods import parse_period
    from service.valuation.rescoring import asked_sum

    wanted = parse_period(period)
    with opened(url) as ledger:
        return asked_sum(ledger, engine, *ledger.range_of(wanted.start_us, wanted.end_us))


def _validated(engine: "Engine", requests: "list[AttributeRequest]") -> "np.ndarray":
    """The summed vector of a validation set, ``[D]``."""
    import numpy as np

    from indexer.progress import Reporter
    from service.valuation.rescoring import vector_of

    query_sum = np.zeros(engine.reader.dims)
    with Reporter().step("Encoding", total=len(requests), unit="queries") as advance:
        for request in requests:
            query_sum += vector_of(engine, request)
            advance(1)
    return query_sum


def _requests(path: Path) -> "list[AttributeRequest]":
    from service.schemas import AttributeRequest

    requests = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        if line.strip():
            try:
                requests.append(AttributeRequest.model_validate_json(line))
            except ValidationError as error:
                raise CorpusError(
                    f"{path}, line {number}: {error.errors()[0]['msg']}. Each line is an object "
                    "with a prompt and a response."
                ) from error
    if not requests:
        raise CorpusError(f"{path} is empty. Give JSON lines with a prompt and a response each.")
    return requests

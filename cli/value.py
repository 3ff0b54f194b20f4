"""`whence value`: what every training document is worth for a validation set."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from influence.errors import CorpusError

if TYPE_CHECKING:
    from service.schemas import AttributeRequest


def value(
    index: Annotated[Path, typer.Argument(help="The index folder.")],
    validation: Annotated[
        Path, typer.Option(help="JSON lines, each with a prompt and a response.", exists=True)
    ],
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
    """Rank all documents by their influence on VALIDATION; one line of JSON for each."""
    requests = _requests(validation)
    import numpy as np

    from indexer.progress import Reporter
    from service.encoding import encode_each, query_of
    from service.engine import Engine
    from service.ledger.chain import canonical
    from service.valuation.curation import Export
    from service.valuation.ranking import kept, rank_documents

    export = Export(keep, drop, dataset)
    export.check()
    engine = Engine.load(index, model, device=device, dtype=dtype)
    try:
        query_sum = np.zeros(engine.reader.dims)
        longest = engine.loaded.context_length
        with Reporter().step("Encoding", total=len(requests), unit="queries") as advance:
            for request in requests:
                query = query_of(request, engine.loaded, max_tokens=longest)
                (encoded,) = encode_each(engine.encoder, [query])
                if isinstance(encoded, Exception):
                    raise encoded
                query_sum += encoded.vector.cpu().numpy()
                advance(1)
        ranked = rank_documents(engine.reader, query_sum)
        if export != Export():
            export.write(engine.reader, kept(ranked, budget=budget, at_least=at_least))
    finally:
        engine.close()
    for one in ranked:
        typer.echo(canonical(vars(one)))


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

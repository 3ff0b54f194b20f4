"""`whence attribute`: one prompt and response, from the command line."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from influence.errors import InvalidInput

if TYPE_CHECKING:
    from service.schemas import AttributeRequest, AttributeResult, Hit

SNIPPET_CHARACTERS = 160


def attribute(
    index: Annotated[Path, typer.Argument(help="The index folder.")],
    prompt: Annotated[str, typer.Option(help="What the model was asked.")],
    response: Annotated[str, typer.Option(help="The answer to explain.")],
    model: Annotated[
        str | None, typer.Option(help="The model; the one that the index names by default.")
    ] = None,
    top_k: Annotated[int, typer.Option("-k", "--top-k", help="Passages on each side.")] = 10,
    ranking: Annotated[str, typer.Option(help="relative or influence.")] = "relative",
    owner: Annotated[
        list[str] | None, typer.Option(help="Only documents of this owner; repeat for several.")
    ] = None,
    source: Annotated[
        list[str] | None, typer.Option(help="Only documents of this source; repeat for several.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")] = "auto",
    dtype: Annotated[
        str, typer.Option(help="float32 or bfloat16; auto: that of the index.")
    ] = "auto",
    json: Annotated[bool, typer.Option("--json", help="The whole answer, as JSON.")] = False,
) -> None:
    """Rank the training passages that most influenced a response."""
    request = _request(
        prompt=prompt,
        response=response,
        top_k=top_k,
        ranking=ranking,
        filter={"owners": owner or None, "sources": source or None} if owner or source else None,
    )
    from service.engine import Engine

    engine = Engine.load(index, model, device=device, dtype=dtype)
    try:
        result = engine.attribute(request, request_id="command-line")
    finally:
        engine.close()
    typer.echo(result.model_dump_json(indent=2) if json else _for_people(result))


def _request(**fields: object) -> "AttributeRequest":
    from service.schemas import AttributeRequest

    try:
        return AttributeRequest.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(
            f"{where} is {first['input']!r}: {first['msg']}. Correct it and try again."
        ) from error


def _for_people(result: "AttributeResult") -> str:
    lines = [f"{result.query.tokens} tokens, {result.query.loss_nats:.2f} nats"]
    if result.query.message:
        lines.append(result.query.message)
    for title, hits in (("Proponents", result.proponents), ("Opponents", result.opponents)):
        if hits:
            lines += ["", f"{title} (relative influence, influence, confidence)"]
            lines += [_hit(hit) for hit in hits]
    return "\n".join(lines)


def _hit(hit: "Hit") -> str:
    text = " ".join(hit.text.split())
    snippet = text if len(text) <= SNIPPET_CHARACTERS else f"{text[:SNIPPET_CHARACTERS]}…"
    name = " · ".join(part for part in (hit.title or hit.document_id, hit.owner) if part)
    return (
        f"{hit.rank:>3}. {hit.relative_influence:+.3f}  {hit.influence:+.4g}  "
        f"{hit.confidence:.3f}  {name}\n     {snippet}"
    )

"""`whence attribute`: one prompt and response, from the command line."""

import re
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from influence.errors import InvalidInput

if TYPE_CHECKING:
    from service.schemas import AttributeRequest, AttributeResult, Hit

SNIPPET_CHARACTERS = 160
SHOWN_WORDS = 5


def attribute(
    index: Annotated[str, typer.Argument(help="The index: a folder, or a URL such as s3://….")],
    prompt: Annotated[str, typer.Option(help="What the model was asked.")],
    response: Annotated[str, typer.Option(help="The answer to explain.")],
    model: Annotated[
        str | None, typer.Option(help="The model; the one that the index names by default.")
    ] = None,
    top_k: Annotated[int, typer.Option("-k", "--top-k", help="Passages on each side.")] = 10,
    ranking: Annotated[str, typer.Option(help="relative or influence.")] = "relative",
    measurement: Annotated[
        str, typer.Option(help="What is explained: loss, log_prob, margin or contrast.")
    ] = "loss",
    alternative: Annotated[
        str | None,
        typer.Option(help="For contrast: the response rather than which this one was given."),
    ] = None,
    span: Annotated[
        str | None,
        typer.Option(metavar="START:END", help="Only these characters of the response."),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Also the words and the modules that carry it.")
    ] = False,
    owner: Annotated[
        list[str] | None, typer.Option(help="Only documents of this owner; repeat for several.")
    ] = None,
    source: Annotated[
        list[str] | None, typer.Option(help="Only documents of this source; repeat for several.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Instead of the stored vectors, full gradients of a small model and few passages: "
            "dot, gauss-newton, fisher, cg, lissa or ekfac."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, spread …")] = "auto",
    dtype: Annotated[
        str, typer.Option(help="float32 or bfloat16; auto: that of the index.")
    ] = "auto",
    trust_remote_code: Annotated[
        str | None, typer.Option(help="The model, by its name, if its own code may run.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The whole answer, as JSON.")] = False,
) -> None:
    """Rank the training passages that most influenced a response."""
    request = _request(
        prompt=prompt,
        response=response,
        top_k=top_k,
        ranking=ranking,
        measurement=measurement,
        alternative=alternative,
        span=_span(span),
        explain=explain,
        filter={"owners": owner or None, "sources": source or None} if owner or source else None,
    )
    if method is not None:
        from cli.reference import attribute_by_reference

        told = attribute_by_reference(
            index, model, request, method, device=device, dtype=dtype, as_json=json
        )
        typer.echo(told)
        return
    from service.engine import Engine

    engine = Engine.load(
        index, model, device=device, dtype=dtype, trust_remote_code=trust_remote_code
    )
    try:
        result = engine.attribute(request, request_id="command-line")
    finally:
        engine.close()
    typer.echo(result.model_dump_json(indent=2) if json else _for_people(request, result))


def _span(given: str | None) -> dict[str, int] | None:
    if given is None:
        return None
    found = re.fullmatch(r"(\d+):(\d+)", given)
    if found is None:
        raise InvalidInput(
            f"The span {given!r} is not START:END; give two numbers of characters, such as 4:15."
        )
    return {"start": int(found[1]), "end": int(found[2])}


def _request(**fields: object) -> "AttributeRequest":
    from service.schemas import AttributeRequest

    try:
        return AttributeRequest.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        found = f"{where} is {first['input']!r}: " if where else ""
        raise InvalidInput(f"{found}{first['msg']}. Correct it and try again.") from error


def _for_people(request: "AttributeRequest", result: "AttributeResult") -> str:
    lines = [f"{result.query.tokens} tokens, {result.query.loss_nats:.2f} nats"]
    if result.query.measurement != "loss":
        lines[0] += f"; {result.query.measurement} {result.query.value:.2f}"
    if result.query.message:
        lines.append(result.query.message)
    for title, hits in (("Proponents", result.proponents), ("Opponents", result.opponents)):
        if hits:
            lines += ["", f"{title} (relative influence, influence, confidence)"]
            for hit in hits:
                lines += [_hit(hit), *_explained(hit, request.response)]
    return "\n".join(lines)


def _explained(hit: "Hit", response: str) -> list[str]:
    """The strongest words of both sides, and the kinds of modules."""
    if hit.tokens is None or hit.explanation is None:
        return []
    # Tokens in front of the passage's text are of its prompt, which is not shown.
    learnt = [
        (hit.text[part.start - hit.start : part.end - hit.start], part.influence)
        for part in hit.tokens
        if hit.start <= part.start
    ]
    bears_on = [(response[p.start : p.end], p.influence) for p in hit.explanation.response]
    kinds = ((kind, influence) for kind, influence in hit.explanation.kinds.items() if influence)
    return [
        f"     learnt at  {_strongest(learnt)}",
        f"     bears on   {_strongest(bears_on)}",
        f"     through    {'  '.join(f'{kind} {influence:+.3g}' for kind, influence in kinds)}",
    ]


def _strongest(words: list[tuple[str, float]]) -> str:
    first = sorted(words, key=lambda word: -abs(word[1]))[:SHOWN_WORDS]
    return "  ".join(f"{word!r} {influence:+.3g}" for word, influence in first)


def _hit(hit: "Hit") -> str:
    text = " ".join(hit.text.split())
    snippet = text if len(text) <= SNIPPET_CHARACTERS else f"{text[:SNIPPET_CHARACTERS]}…"
    name = " · ".join(part for part in (hit.title or hit.document_id, hit.owner) if part)
    return (
        f"{hit.rank:>3}. {hit.relative_influence:+.3f}  {hit.influence:+.4g}  "
        f"{hit.confidence:.3f}  {name}\n     {snippet}"
    )

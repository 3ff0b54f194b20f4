"""What an attribution leaves in the ledger: from a request and its answer to a pending entry."""

import json
from base64 import b64decode, b64encode
from dataclasses import asdict
from typing import Any

import numpy as np

from influence.store import NO_OWNER
from service.ledger.chain import Pending, canonical, commitment, pack_totals, sha256_of
from service.ledger.ledger import owners_key
from service.schemas import AttributeRequest, AttributeResult

# Of a request: what does not change the totals.
_NOT_THE_QUERY = {"top_k", "ranking", "filter", "opponents", "explain", "usage"}
TOP_PASSAGES = 5  # of the proponents and of the opponents, that an entry names


def owners_entry(body: dict[str, Any], *, time_us: int) -> Pending:
    """The owners of an index version, which totals stand for.

    Args:
        body: ``index``, ``version``, ``model``, ``names`` sorted, and what is known of each.
        time_us: Now.
    """
    said = canonical(body)
    return Pending("owners", owners_key(sha256_of(said)), time_us, said)


def owners_of(result: AttributeResult, *, time_us: int) -> tuple[Pending, dict[str, int]]:
    """The entry that names the owners of an answer, and their places in the totals."""
    names = sorted(share.owner or NO_OWNER for share in result.owners)
    body = {
        "index": result.index.id,
        "version": result.index.version,
        "model": result.model,
        "names": names,
    }
    return owners_entry(body, time_us=time_us), {name: place for place, name in enumerate(names)}


def owners_digest(owners: Pending) -> str:
    """What a pending attribution names its owners by."""
    return owners.key.removeprefix(owners_key(""))


def query_text(request: AttributeRequest) -> str:
    """Everything of a request that decides its totals, as canonical JSON."""
    asked = request.model_dump(mode="json", exclude=_NOT_THE_QUERY)
    return canonical({name: value for name, value in asked.items() if value is not None})


def attribution_entry(
    request: AttributeRequest,
    result: AttributeResult,
    owners: Pending,
    names: dict[str, int],
    *,
    caller: str | None,
    usage: float,
    probability: float,
    policy: str,
    keep_text: bool,
    salt: bytes,
    time_us: int,
) -> Pending:
    """One answer, with the exact signed total of every owner.

    Args:
        request: What was asked.
        result: What was answered; its owners are those of ``names``.
        owners: Of the index version that answered.
        names: Position of each owner in the totals; `NO_OWNER` is the unattributed remainder.
        caller: Id of the API key.
        usage: Weight of the answer: its tokens, or what was paid for it.
        probability: With which the policy records such an answer.
        policy: Its name.
        keep_text: Whether the text may be kept.
        salt: 16 random bytes.
        time_us: Now.
    """
    totals = np.zeros(len(names))
    for share in result.owners:
        totals[names[share.owner or NO_OWNER]] = share.influence
    text = query_text(request)
    text_sha256 = sha256_of(text)
    body = {
        "request_id": result.request_id,
        "caller": caller,
        "query": commitment(salt, text_sha256),
        "tokens": result.query.tokens,
        "stands_out": result.query.stands_out,
        "usage": usage,
        "policy": policy,
        "probability": probability,
        "passages": [[h.passage_id, h.influence] for h in result.proponents[:TOP_PASSAGES]],
        "against": [[h.passage_id, h.influence] for h in result.opponents[:TOP_PASSAGES]],
    }
    return Pending(
        "attribution",
        f"request:{result.request_id}",
        time_us,
        canonical(body),
        weight=usage / probability,
        owners=owners_digest(owners),
        totals=pack_totals(totals),
        salt=salt,
        text=text if keep_text else None,
        text_sha256=text_sha256,
    )


def to_line(pending: Pending) -> bytes:
    """A pending entry as one line of the spool."""
    fields = asdict(pending)
    for name in ("totals", "salt"):
        if fields[name] is not None:
            fields[name] = b64encode(fields[name]).decode("ascii")
    return canonical(fields).encode("ascii")


def from_line(line: bytes) -> Pending:
    """The pending entry of a line.

    Raises:
        ValueError: It is none.
    """
    fields = json.loads(line)
    for name in ("totals", "salt"):
        if fields[name] is not None:
            fields[name] = b64decode(fields[name], validate=True)
    try:
        return Pending(**fields)
    except TypeError as error:
        raise ValueError(f"a line of the spool has the fields {sorted(fields)}.") from error

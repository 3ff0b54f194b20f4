"""Thousands of broken and half-broken requests to a running server: none may end in a 5xx.

    whence serve INDEX --no-auth
    python -m benchmarks.fuzz http://127.0.0.1:8000 --requests 10000

Requests come from one seed: valid bodies with a part replaced, bytes flipped or cut off, wrong
methods, paths, headers and types. 504 is only counted as a failure where no deadline was sent.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from typing import Any

import httpx2

STRANGE: list[Any] = [
    None, True, -1, 0, 1e308, 10**30, "", " ", "\x00", "\ud800", "💥" * 50, "../../etc/passwd",
    "'; DROP TABLE keys; --", "<script>alert(1)</script>", [], {}, [[]], {"a": {}}, "x" * 5_000,
]  # fmt: skip
PATHS = [
    "/attribute", "/attribute/batch", "/documents/%s", "/info", "/readyz", "/metrics", "/%s",
    "/static/%s", "/indexes/%s/activate", "//", "/attribute/", "/openapi.json",
]  # fmt: skip
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "BREW"]


def valid_body(draw: random.Random) -> dict[str, Any]:
    """A request that is answered."""
    body: dict[str, Any] = {
        "prompt": "who is the king?",
        "response": " ".join(draw.choices(["the", "king", "river", "gold", "é", "北"], k=8)),
        "top_k": draw.randint(1, 100),
        "ranking": draw.choice(["relative", "influence"]),
        "opponents": draw.random() < 0.5,
    }
    if draw.random() < 0.3:
        body["filter"] = {"owners": draw.sample(["Anna", "Bruno", "Nobody"], k=2)}
    if draw.random() < 0.3:
        body["span"] = {"start": draw.randint(0, 9), "end": draw.randint(1, 40)}
    if draw.random() < 0.2:
        body |= {"measurement": "contrast", "alternative": "the queen"}
    return body


def broken(value: Any, draw: random.Random) -> Any:
    """The same with something strange in one place, however deep."""
    if draw.random() < 0.3 or not isinstance(value, dict | list) or not value:
        return draw.choice(STRANGE)
    if isinstance(value, list):
        place = draw.randrange(len(value))
        return [broken(v, draw) if i == place else v for i, v in enumerate(value)]
    name = draw.choice([*value, "made-up"])
    return {**value, name: broken(value.get(name), draw)}


def content(draw: random.Random, *, batch: bool) -> bytes:
    """A body: valid, broken in its values, or broken in its bytes."""
    one = valid_body(draw)
    body: Any = {"requests": [one] * draw.randint(0, 3)} if batch else one
    if draw.random() < 0.7:
        body = broken(body, draw)
    raw = bytearray(json.dumps(body).encode())
    if raw and draw.random() < 0.2:
        for _ in range(draw.randint(1, 4)):
            raw[draw.randrange(len(raw))] = draw.randrange(256)
    return bytes(raw[: draw.randrange(len(raw) + 1)] if draw.random() < 0.1 else raw)


def request(http: httpx2.AsyncClient, draw: random.Random) -> httpx2.Request:
    """Any request."""
    if draw.random() < 0.7:
        path = draw.choice(PATHS[:2])
        method = "POST"
    else:
        names = ["shelf/1", "%00", "%ff", "..%2f..%2fetc%2fpasswd", "a" * 3_000, "%F0%9F%92%A5"]
        path = draw.choice(PATHS).replace("%s", draw.choice(names))
        method = draw.choice(METHODS)
    kinds = ["application/json"] * 8 + ["text/plain", "application/xml", "", "multipart/form-data"]
    headers = {"Content-Type": draw.choice(kinds)}
    if draw.random() < 0.2:
        headers["X-Request-Id"] = draw.choice(["ok-1", "a b", "x" * 500, "<b>"])
    if draw.random() < 0.1:
        headers["X-Request-Timeout-Ms"] = draw.choice(["5000", "0", "-1", "soon", "9" * 40])
    body = content(draw, batch=path.endswith("batch"))
    return http.build_request(method, http.base_url.join(path), content=body, headers=headers)


async def fuzz(url: str, key: str | None, number: int, seed: int, clients: int) -> Counter[int]:
    """Send ``number`` requests and count the statuses; prints every failure."""
    draw = random.Random(seed)
    statuses: Counter[int] = Counter()
    left = iter(range(number))
    bearer = {"Authorization": f"Bearer {key}"} if key else {}

    async def client() -> None:
        async with httpx2.AsyncClient(base_url=url, headers=bearer, timeout=120) as http:
            for _ in left:
                sent = request(http, draw)
                answer = await http.send(sent)
                statuses[answer.status_code] += 1
                if answer.status_code >= 500:
                    print(answer.status_code, sent.method, sent.url, sent.content[:500])
                done = sum(statuses.values())
                if done % 1_000 == 0:
                    print(f"{done} of {number}", file=sys.stderr)

    await asyncio.gather(*(client() for _ in range(clients)))
    return statuses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("url")
    parser.add_argument("--key")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clients", type=int, default=8)
    given = parser.parse_args()
    begun = time.perf_counter()
    statuses = asyncio.run(fuzz(given.url, given.key, given.requests, given.seed, given.clients))
    took = time.perf_counter() - begun
    told = ", ".join(f"{count} of {status}" for status, count in sorted(statuses.items()))
    print(f"{given.requests} requests in {took:.0f} s: {told}")
    sys.exit(1 if any(status >= 500 for status in statuses) else 0)


if __name__ == "__main__":
    main()

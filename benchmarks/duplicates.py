"""Near-duplicates among many documents: how long it takes, and how much memory.

    python -m benchmarks.duplicates [--documents 100000 --words 100]

Documents are random words; a tenth of them are copies of others with three words replaced, which
leaves a Jaccard index of three-word runs of .83 or more at 100 words. What is timed is
`service.valuation.duplicates.text_duplicates` at its default threshold, reading nothing.
"""

import argparse
import random
import resource
import time
from collections.abc import Iterator

from influence.documents import Document
from service.valuation.duplicates import text_duplicates

COPIES = 0.1
REPLACED = 3  # words of a copy
VOCABULARY = 20_000


def documents(count: int, words: int) -> Iterator[Document]:
    draw = random.Random(0)
    kept: list[list[str]] = []
    for number in range(count):
        if kept and draw.random() < COPIES:
            said = list(draw.choice(kept))
            for place in draw.sample(range(words), REPLACED):
                said[place] = f"w{draw.randrange(VOCABULARY)}"
            yield Document(id=f"copy {number}", plain=" ".join(said))
            continue
        said = [f"w{draw.randrange(VOCABULARY)}" for _ in range(words)]
        if len(kept) < 1_000:  # copied from; the others have no copy
            kept.append(said)
        yield Document(id=f"{number}", plain=" ".join(said))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--words", type=int, default=100)
    chosen = parser.parse_args()
    begun, cpu = time.perf_counter(), time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = text_duplicates(documents(chosen.documents, chosen.words), jaccard=0.8)
    took, cpu = time.perf_counter() - begun, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    hits = sum(one.document_id.startswith("copy") for one in found)
    copies = sum(one.id.startswith("copy") for one in documents(chosen.documents, chosen.words))
    print(
        f"{chosen.documents:,} documents of {chosen.words} words: {took:.0f} s ({cpu:.0f} s of "
        f"CPU, {chosen.documents / cpu:,.0f} documents for each), {(peak - before) / 2**20:.2f} "
        f"GiB; {hits} of {copies} copies found, {len(found) - hits} others"
    )


if __name__ == "__main__":
    main()

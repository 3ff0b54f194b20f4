"""The demo's own answers: how many of those that repeat one record name it.

    python -m benchmarks.demo_answers [--questions 112]

Model and index are those that `make demo` left in the cache; what is missing of them is made. The
questions, their order and the rule are those of the demo's self-check, which stops after ten.
"""

import argparse
import random
from pathlib import Path

from demo.corpus import DOCUMENTS, choose_records
from demo.facts import FactIndex, stretch
from demo.run import SEARCH_MEMORY_BYTES, run_demo
from demo.selfcheck import OWN_TEXTS, ROUND, TOP
from demo.session import Session
from influence.model import load_model


def count(session: Session, questions: int) -> None:
    """Print how many answers repeat exactly one record, and how many name it among the first."""
    records = choose_records(seed=0, documents=DOCUMENTS)
    facts = FactIndex(records)
    draw = random.Random(0)
    draw.sample(records, OWN_TEXTS)  # of the self-check's other part, which draws before
    order = draw.sample(records, len(records))[:questions]
    found = {"asked": 0, "repeat one record": 0, "name it": 0, "by the stretch": 0}
    for start in range(0, len(order), ROUND):
        asked = order[start : start + ROUND]
        found["asked"] += len(asked)
        given = session.generate([record.question for record in asked])
        for record, answer in zip(asked, given, strict=True):
            repeated = facts.repeated(record.question, answer)
            if len(repeated) != 1:
                continue
            ((expected, by),) = repeated.items()
            found["repeat one record"] += 1
            for name, span in (("name it", None), ("by the stretch", stretch(answer, by))):
                hits = session.attribute(record.question, answer, TOP, span).proponents
                found[name] += expected in {hit.document_id for hit in hits}
        print(", ".join(f"{name}: {number}" for name, number in found.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--questions", type=int, default=112)
    parser.add_argument("--cache", type=Path, help="Of the demo; the user's own by default.")
    given = parser.parse_args()
    demo = run_demo(given.cache)
    loaded = load_model(demo.model_dir)
    with Session(demo.index_dir, loaded, search_memory_bytes=SEARCH_MEMORY_BYTES) as session:
        count(session, given.questions)


if __name__ == "__main__":
    main()

import pytest

from demo.facts import FactIndex
from demo.selfcheck import OUTSIDE, SelfCheckFailed, self_check
from demo.wrong_answer import explain_wrong_answer
from indexer.progress import Silence
from service.schemas import AttributeResult, Hit, IndexReference, QueryFacts, Timings


def hit(document_id: str, rank: int, relative: float) -> Hit:
    return Hit(
        rank=rank,
        document_id=document_id,
        passage_id=f"{document_id}#0",
        influence=relative,
        relative_influence=relative,
        confidence=0.9,
        title=None,
        source=None,
        owner=None,
        licence=None,
        url=None,
        text="",
        start=0,
        end=0,
    )


def result(proponents: list[str], opponents: list[str], *, stands_out: bool) -> AttributeResult:
    return AttributeResult(
        request_id="t",
        model="tiny",
        index=IndexReference(id="i", version="1", exact=True),
        query=QueryFacts(
            tokens=1,
            loss_nats=1.0,
            measurement="loss",
            value=1.0,
            stands_out=stands_out,
            message=None,
        ),
        proponents=tuple(hit(name, n + 1, 0.5) for n, name in enumerate(proponents)),
        opponents=tuple(hit(name, n + 1, -0.5) for n, name in enumerate(opponents)),
        owners=(),
        timings_ms=Timings(queue=0, gradient=0, search=0, fetch=0),
        cached=False,
    )


class Town:
    """A service that knows by looking at the texts, and a model that recites or mixes up."""

    def __init__(self, records, *, mixes_up=(), stands_out_always=False, blind=False):
        self.records = records
        self.facts = FactIndex(records)
        self.by_question = {record.question: record for record in records}
        self.mixes_up = mixes_up
        self.stands_out_always = stands_out_always
        self.blind = blind

    def generate(self, questions):
        answers = []
        for question in questions:
            record = self.by_question.get(question)
            if record is not None and record.id in self.mixes_up:
                record = self.records[self.records.index(record) - 1]
            answers.append("It depends on many things." if record is None else record.answer)
        return answers

    def attribute(self, prompt, response, top_k, span=None):
        named = [] if self.blind else list(self.facts.repeated("", response))
        others = [record.id for record in self.records if record.id not in named]
        asked = self.by_question.get(prompt)
        opponents = [asked.id] if asked is not None and asked.id not in named else []
        return result(
            (named + others)[:top_k],
            opponents + named,
            stands_out=bool(named) or self.stands_out_always,
        )


@pytest.fixture
def many(records):
    """Records enough for every check."""
    extra = [
        type(record)(
            **{
                **record.__dict__,
                "id": f"{record.id}-{measure}",
                "question": f"What is the {measure} of {record.owner}?",
                "answer": f"The {measure} of {record.owner}: {base * (n + 2):,} {unit}.",
            }
        )
        for n, record in enumerate(records)
        for measure, base, unit in (("area", 31_013, "square miles"), ("height", 1_009, "feet"))
    ]
    return [*records, *extra]


def check(town, many):
    return self_check(town.attribute, town.generate, many, reporter=Silence())


def test_a_service_that_knows_passes_all_three(many):
    found = check(Town(many), many)
    assert [(c.held, c.passed) for c in found.checks] == [(10, True), (10, True), (6, True)]
    assert found.wrong_answer is None


def test_a_blind_service_fails_with_the_bars_in_its_message(many):
    with pytest.raises(
        SelfCheckFailed,
        match=r"first: \d of 10 \(needed: 9\).*"
        r"top 5 \(of the others, \d+ by the repeating stretch alone\): \d of 10",
    ):
        check(Town(many, blind=True), many)


def test_a_service_that_always_names_something_fails(many):
    with pytest.raises(SelfCheckFailed, match=f"outside: 0 of {len(OUTSIDE)}"):
        check(Town(many, stands_out_always=True), many)


def test_a_model_that_repeats_nothing_cannot_be_checked(many):
    town = Town(many)
    with pytest.raises(SelfCheckFailed, match="only 0 of 24 generated answers repeat one record"):
        self_check(
            town.attribute, lambda questions: ["?"] * len(questions), many, reporter=Silence()
        )


def test_a_wrong_answer_is_explained_by_the_record_whose_words_it_carries(many):
    town = Town(many, mixes_up=("town-cusp",))
    found = check(town, many)
    case = found.wrong_answer
    assert case is not None
    assert (case.asked, case.carries, case.first_proponent) == (
        "town-cusp",
        "town-borra",
        "town-borra",
    )
    assert case.opponent_rank == 1
    assert case.strongest_opponent == "town-cusp"


def test_of_several_wrong_answers_the_clearest_is_shown(many):
    borra, cusp, delve = many[1:4]

    def attribute(prompt, response, top_k, span=None):
        if prompt == cusp.question:
            return result([delve.id], [], stands_out=True)  # names the wrong one
        return result([borra.id], [delve.id], stands_out=True)

    answers = [(cusp, borra.answer), (delve, borra.answer)]
    case = explain_wrong_answer(attribute, answers, many)
    assert case is not None
    assert case.asked == delve.id
    assert case.carries == borra.id
    assert case.carried in borra.answer

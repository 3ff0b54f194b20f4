"""Any sequence of changes, killed at any file operation, against a dictionary.

The model of an index is a dictionary: id -> (text, owner, vectors). Whatever happened, an index
holds exactly that: no row lost, none that was removed, none with another's vector or owner. A
process that is killed leaves what was before or what was to come, and never anything between;
what was acknowledged stays.
"""

import shutil
import signal
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from influence.addition import append_shards
from influence.change import CHANGING
from influence.compaction import compact_index
from influence.documents import Document
from influence.lock import changing
from influence.manifest import CorpusIdentity, Shard
from influence.removal import Selection, remove_documents
from influence.retention import clear_versions, roll_back
from influence.staging import Staging
from influence.store import IndexReader
from influence.tables import PassageRow

DIMS = 12
OWNERS = (None, "Anna", "Bela")
Model = dict[str, tuple[str, str, tuple[int, ...]]]  # id -> text, owner, seeds of the vectors


def _vector(seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (generator.normal(size=DIMS) * 10.0 ** generator.integers(-2, 3)).astype(np.float32)


def _add(index_dir: Path, added: Model) -> None:
    """As `indexer.add` does once the gradients are there, two passages to a shard."""
    with tempfile.TemporaryDirectory() as folder:
        staging = Staging.open(Path(folder), {})
        rows = [(i, n, seed) for i, (*_, seeds) in added.items() for n, seed in enumerate(seeds)]
        shards = []
        for number, start in enumerate(range(0, len(rows), 2)):
            part = rows[start : start + 2]
            staging.write_shard(
                number,
                np.stack([_vector(seed) for *_, seed in part]),
                [PassageRow(i, n, 0, 1, 1, 1.0, 2) for i, n, _ in part],
                [
                    Document(i, plain=added[i][0], owner=added[i][1] or None)
                    for i, n, _ in part
                    if n == 0
                ],
                {},
            )
            shards.append(Shard(name=f"{number:05d}", rows=len(part)))
        corpus = CorpusIdentity(
            name="c",
            fingerprint="f",
            documents=len(added),
            passages=len(rows),
            tokens=2 * len(rows),
            target_tokens=len(rows),
        )
        with changing(index_dir):
            append_shards(IndexReader.open(index_dir), staging.directory, shards, corpus)


def _assert_is(index_dir: Path, model: Model) -> None:
    reader = IndexReader.open(index_dir)
    reader.verify()
    _assert_holds(reader, model)


def _assert_holds(reader: IndexReader, model: Model) -> None:
    assert sorted(reader.document_ids()) == sorted(model)
    found: dict[str, dict[int, int]] = {i: {} for i in model}
    units = np.concatenate([np.empty((0, DIMS), dtype=np.float16), *reader.vector_shards()])
    assert len(units) == len(reader) == len(reader.norms) == sum(len(m[2]) for m in model.values())
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    for row in range(len(reader)):
        passage = reader.passage(row)
        text, owner, seeds = model[passage.document_id]
        found[passage.document_id][passage.number] = row
        vector = _vector(seeds[passage.number])
        norm = np.linalg.norm(vector.astype(np.float64))
        assert reader.norms[row] == np.float32(norm)
        np.testing.assert_array_equal(units[row], (vector / norm).astype(np.float16))
        assert reader.row_owners[row] == owner
        exact = units[row].astype(np.float64) * float(reader.norms[row])
        sums[owner] = sums.get(owner, 0.0) + exact
        counts[owner] = counts.get(owner, 0) + 1
    for document_id, (text, owner, seeds) in model.items():
        stored = reader.document(document_id)
        assert (stored.text, stored.owner or "") == (text, owner)
        assert sorted(found[document_id]) == list(range(len(seeds)))
        assert list(stored.rows) == [found[document_id][n] for n in range(len(seeds))]
    totals = reader.owners
    assert totals.names == tuple(sorted(sums))
    for name, total, count in zip(totals.names, totals.sums, totals.counts, strict=True):
        assert count == counts[name]
        # float64 sums in another order, rounded to float32 once.
        scale = reader.norms[reader.row_owners == name].sum()
        np.testing.assert_allclose(total, sums[name], rtol=0, atol=2**-23 * scale)
    corpus = reader.manifest.corpus
    assert (corpus.documents, corpus.passages) == (len(model), len(reader))


class Lifecycle(RuleBasedStateMachine):
    """The index, and for each version what it must hold."""

    write_index = None  # set by the test
    in_child = None
    die_at = None

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.index_dir = self.folder / "index"
        made = type(self).write_index(self.index_dir)
        remove_documents(self.index_dir, Selection({d.id for d in made.documents}))
        self.model: Model = {}
        self.seed = 0
        self.of: dict[str, Model] = {IndexReader.open(self.index_dir).version: {}}
        self._do(lambda: _add(self.index_dir, after), after := self._new(["a", "b"], [0, 1]), None)
        self._clear(0)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def _new(self, ids, owners) -> Model:
        new = {}
        for i, o in zip(ids, owners, strict=True):
            self.seed += 3
            seeds = tuple(range(self.seed, self.seed + 1 + self.seed % 3))
            new[i] = (f"text {self.seed}", OWNERS[o] or "", seeds)
        return new

    def _do(self, work, after: Model, die_at: int | None) -> None:
        """Run a change, killed or not, and see that it left what was or what was to come."""
        before = IndexReader.open(self.index_dir).version
        if die_at is None:
            work()
            survived = True
        else:
            die = type(self).die_at
            code, said = type(self).in_child(lambda: die(die_at, self.index_dir, work))
            assert said == ""
            assert code in (0, -signal.SIGKILL)
            survived = code == 0
        reader = IndexReader.open(self.index_dir)
        if survived or reader.version != before:
            self.model = after
            self.of[reader.version] = after
        reader.verify()
        _assert_holds(reader, self.model)

    def _clear(self, keep: int) -> None:
        clear_versions(self.index_dir, keep=keep)
        there = {path.name for path in (self.index_dir / "versions").iterdir()}
        self.of = {name: model for name, model in self.of.items() if name in there}
        assert not (self.index_dir / CHANGING).exists()

    DIE = st.none() | st.integers(1, 60)

    @rule(
        ids=st.sets(st.sampled_from("abcdef"), min_size=1, max_size=3),
        owner=st.integers(0, 2),
        die_at=DIE,
    )
    def add_or_replace(self, ids, owner, die_at) -> None:
        chosen = sorted(ids)
        added = self._new(chosen, [(owner + n) % 3 for n in range(len(chosen))])
        self._do(lambda: _add(self.index_dir, added), {**self.model, **added}, die_at)

    @precondition(lambda self: len(self.model) > 1)
    @rule(data=st.data(), die_at=DIE)
    def remove_one(self, data, die_at) -> None:
        gone = data.draw(st.sampled_from(sorted(self.model)))
        after = {i: m for i, m in self.model.items() if i != gone}
        self._do(lambda: remove_documents(self.index_dir, Selection({gone})), after, die_at)

    @precondition(lambda self: len({m[1] for m in self.model.values()} - {""}) > 1)
    @rule(data=st.data(), die_at=DIE)
    def remove_an_owner(self, data, die_at) -> None:
        owners = sorted({m[1] for m in self.model.values()} - {""})
        owner = data.draw(st.sampled_from(owners))
        after = {i: m for i, m in self.model.items() if m[1] != owner}
        selection = Selection(owners={owner})
        self._do(lambda: remove_documents(self.index_dir, selection), after, die_at)

    @rule(die_at=DIE)
    def compact(self, die_at) -> None:
        self._do(lambda: compact_index(self.index_dir), dict(self.model), die_at)

    @precondition(lambda self: len(self.of) > 1)
    @rule(data=st.data(), die_at=DIE)
    def go_to_another_version(self, data, die_at) -> None:
        version = data.draw(st.sampled_from(sorted(self.of)))
        self._do(lambda: roll_back(self.index_dir, version), self.of[version], die_at)

    @rule(keep=st.integers(0, 3), die_at=DIE)
    def clear(self, keep, die_at) -> None:
        if die_at is not None:
            die = type(self).die_at
            type(self).in_child(
                lambda: die(
                    die_at, self.index_dir, lambda: clear_versions(self.index_dir, keep=keep)
                )
            )
            _assert_is(self.index_dir, self.model)
        self._clear(keep)
        _assert_is(self.index_dir, self.model)

    @rule(data=st.data())
    def read_another_version(self, data) -> None:
        version = data.draw(st.sampled_from(sorted(self.of)))
        _assert_holds(IndexReader.open(self.index_dir, version), self.of[version])


@pytest.mark.parametrize(
    ("examples", "steps"),
    [(8, 10), pytest.param(60, 20, marks=pytest.mark.slow)],
    ids=["short", "long"],
)
def test_any_sequence_of_changes_killed_anywhere(write_index, in_child, die_at, examples, steps):
    machine = type("Machine", (Lifecycle,), {})
    machine.write_index, machine.in_child = staticmethod(write_index), staticmethod(in_child)
    machine.die_at = staticmethod(die_at)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        ),
    )


@pytest.mark.slow
def test_readers_under_load_while_versions_change_fifty_times(write_index, tmp_path):
    """Every answer is that of one version: each adds or removes one owner's documents whole."""
    made = write_index(tmp_path / "index")
    index_dir = made.index_dir
    remove_documents(index_dir, Selection({d.id for d in made.documents if d.owner != "Grant"}))
    wrong: list[str] = []
    answers = 0
    stop = threading.Event()
    extra = {f"e{n}": (f"text {n}", "Anna", (3 * n, 3 * n + 1)) for n in range(6)}
    rows = {False: len(IndexReader.open(index_dir)), True: 0}
    rows[True] = rows[False] + 12

    def read() -> None:
        nonlocal answers
        while not stop.is_set():
            try:
                reader = IndexReader.open(index_dir)
                has = "e0" in reader.document_ids()
                units = np.concatenate(reader.vector_shards())
                seen = (
                    len(reader) == len(units) == rows[has],
                    ("Anna" in reader.owners.names) == has,
                    int((reader.row_owners == "Anna").sum()) == 12 * has,
                    {reader.passage(row).document_id[0] for row in range(len(reader))}
                    == ({"d", "c", "e"} if has else {"d", "c"}),
                    all(reader.document(f"e{n}").text == f"text {n}" for n in range(6 * has)),
                )
                answers += 1
                if not all(seen):
                    wrong.append(f"{reader.version}: {seen}")
            except Exception as error:  # noqa: BLE001 - whatever it is, a reader met it
                wrong.append(repr(error))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for change in range(50):
            if change % 2:
                remove_documents(index_dir, Selection(owners={"Anna"}))
            else:
                _add(index_dir, extra)
            if change % 5 == 4:
                compact_index(index_dir)
            clear_versions(index_dir, keep=change % 2)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert answers > 50

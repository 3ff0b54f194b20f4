import gc
import weakref

import pytest
import torch

from indexer.halving import Halving
from influence.errors import OutOfMemory
from influence.tokens import Passage, TokenSequence


def _passages(*lengths: int) -> list[Passage]:
    return [
        Passage(f"d{i}#0", f"d{i}", 0, 0, 1, TokenSequence([1] * n, [False] * n, [(0, 0)] * n))
        for i, n in enumerate(lengths)
    ]


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory.")


def _worker(limit, error=OUT_OF_MEMORY):
    tried = []

    def work(part):
        tried.append(list(part))
        if len(part) > limit:
            raise error
        return sum(part)

    return work, tried


def test_what_fits_is_computed_whole():
    work, tried = _worker(4)
    assert list(Halving().run(_passages(5, 5, 5, 5), [0, 1, 2, 3], work)) == [([0, 1, 2, 3], 6)]
    assert tried == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(""),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("CUDA error: out of memory"),
    ],
)
def test_what_does_not_fit_is_computed_in_halves_in_order(error):
    work, tried = _worker(2, error)
    results = list(Halving().run(_passages(*[5] * 7), list(range(7)), work))
    assert [i for part, _ in results for i in part] == list(range(7))
    assert all(result == sum(part) for part, result in results)
    assert max(len(part) for part, _ in results) <= 2
    assert tried[0] == list(range(7))


def test_what_did_not_fit_once_is_not_tried_again():
    halving = Halving()
    passages = _passages(*[5] * 8)
    work, tried = _worker(3)
    list(halving.run(passages, list(range(8)), work))
    tried.clear()
    list(halving.run(passages, list(range(8)), work))
    assert max(map(len, tried)) <= 3


def test_a_single_passage_that_does_not_fit_is_named():
    work, _ = _worker(0)
    with pytest.raises(OutOfMemory, match=r"Passage d1#0 of 9 tokens.*--max-length") as raised:
        list(Halving().run(_passages(5, 9), [1], work))
    assert isinstance(raised.value.__cause__, torch.OutOfMemoryError)


def test_other_errors_are_not_hidden():
    work, tried = _worker(0, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        list(Halving().run(_passages(5, 5), [0, 1], work))
    assert len(tried) == 1


def test_the_memory_of_the_failed_attempt_is_free_before_the_next():
    """An exception holds its frames, and these hold the activations that did not fit."""
    held: list[weakref.ref] = []
    free = []

    def work(part):
        gc.collect()
        free.append(all(reference() is None for reference in held))
        activations = torch.zeros(10)
        held.append(weakref.ref(activations))
        if len(part) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return activations.sum().item()

    list(Halving().run(_passages(5, 5, 5, 5), [0, 1, 2, 3], work))
    assert len(free) > 4
    assert all(free)

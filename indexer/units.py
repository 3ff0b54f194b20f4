"""The corpus as units of work: the passages of one shard each.

The survey notes where each shard begins. So a process that takes some of the shards cuts no more
documents into tokens than those that reach into them; it only reads past the others.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from indexer.corpus import Located
from influence.documents import Document
from influence.errors import CorpusError
from influence.tokens import Passage

Place = tuple[int, int]  # a document's number in the corpus, and that of a passage in it


@dataclass(frozen=True)
class Item:
    """A passage on its way, with its document where the passage is the first of it."""

    passage: Passage
    document: Document | None


class Numbered(Iterator[Located]):
    """Documents, counting them.

    Attributes:
        number: Of the last one given, from 0.
    """

    def __init__(self, located: Iterable[Located]) -> None:
        self.number = -1
        self._located = iter(located)

    def __next__(self) -> Located:
        item = next(self._located)
        self.number += 1
        return item


class Units:
    """A surveyed corpus, from which the passages of chosen shards can be had.

    Args:
        read: Reads the corpus from its beginning.
        cut: The passages of a document.
        places: Where each shard begins.
        size: Passages of each shard but the last.
        passages: Passages of all.
    """

    def __init__(
        self,
        read: Callable[[], Iterable[Located]],
        cut: Callable[[Located], Sequence[Passage]],
        places: Sequence[Place],
        *,
        size: int,
        passages: int,
    ) -> None:
        self._read = read
        self._cut = cut
        self._places = places
        self._size = size
        self._passages = passages

    def __len__(self) -> int:
        return len(self._places)

    def chosen(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, list[Item]]]:
        """Read the corpus once; yields the numbers of the wanted shards with their passages.

        Args:
            wanted: Asked once for each shard, in their order, when the reading gets there.

        Raises:
            CorpusError: The corpus is no longer what was surveyed.
        """
        unit, items, is_wanted = -1, [], False
        for document, located in enumerate(self._read()):
            last = bisect_right(self._places, (document, self._passages)) - 1
            if last == unit and not is_wanted:
                continue
            for number, passage in enumerate(self._cut(located)):
                if unit + 1 < len(self) and (document, number) == self._places[unit + 1]:
                    if is_wanted:
                        yield unit, self._checked(unit, items)
                    unit, items = unit + 1, []
                    is_wanted = wanted(unit)
                if is_wanted:
                    items.append(Item(passage, located.document if number == 0 else None))
        if is_wanted:
            yield unit, self._checked(unit, items)
        if unit != len(self) - 1:
            raise CorpusError(_changed(unit + 1))

    def _checked(self, unit: int, items: list[Item]) -> list[Item]:
        if len(items) != min(self._size, self._passages - unit * self._size):
            raise CorpusError(_changed(unit))
        return items


def _changed(unit: int) -> str:
    return (
        f"The corpus was changed while it was being indexed: shard {unit} has other passages than "
        "at the beginning. Leave the corpus alone and run the same command again."
    )

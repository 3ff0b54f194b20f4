"""The passages of a corpus: every document cut as the model will read it.

Survey and logging both go through here, so they see the same passages in the same order.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from indexer.corpus import Located, OnBad
from influence.errors import CorpusError, InvalidInput
from influence.tokens import Passage, document_passages

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def cut_corpus(
    located: Iterable[Located],
    tokenizer: "PreTrainedTokenizerBase",
    *,
    max_length: int,
    skip_bad_records: bool = False,
    on_bad: OnBad | None = None,
) -> Iterator[tuple[Located, list[Passage]]]:
    """Cut each document into its passages; a document without a target token has none.

    A document that the model's chat template refuses is a bad record, as one that cannot be read.

    Raises:
        CorpusError: The chat template refuses or rewrites a document, and bad records are not
            skipped; or what the corpus itself raises.
    """
    for item in located:
        try:
            passages = list(document_passages(item.document, tokenizer, max_length=max_length))
        except InvalidInput as error:
            fault = f"{item.where}: {error}"
            if not skip_bad_records:
                raise CorpusError(
                    f"{fault} Or leave such records out with --skip-bad-records."
                ) from error
            if on_bad is not None:
                on_bad(fault)
            continue
        yield item, passages


def document_cutter(
    tokenizer: "PreTrainedTokenizerBase", *, max_length: int, skip_bad_records: bool = False
) -> Callable[[Located], list[Passage]]:
    """The passages of one document, as `cut_corpus` gives them; none of a bad record."""

    def cut(item: Located) -> list[Passage]:
        pairs = cut_corpus(
            [item], tokenizer, max_length=max_length, skip_bad_records=skip_bad_records
        )
        return [passage for _, passages in pairs for passage in passages]

    return cut

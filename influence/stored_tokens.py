"""The tokens of stored passages, made again from their documents as the indexer made them.

That they are those of the index is checked against what the index says of each row. Importing this
module loads neither torch nor transformers.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from influence.errors import IndexCorrupt
from influence.store import StoredDocument, StoredPassage
from influence.tokens import Passage, TokenSequence, document_passages

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class StoredTokens:
    """Tokens of the passages of one index.

    Args:
        document: Reads a document of it.
        tokenizer: The model's own.
        max_length: Most tokens of a passage, as the index was built.
    """

    def __init__(
        self,
        document: Callable[[str], StoredDocument],
        tokenizer: "PreTrainedTokenizerBase",
        *,
        max_length: int,
    ) -> None:
        self._read = document
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._cut: dict[str, dict[int, Passage]] = {}  # passages of one document are common

    def of(self, stored: StoredPassage) -> TokenSequence:
        """The tokens of a row.

        Raises:
            IndexCorrupt: They cannot be made again as they were indexed.
        """
        made = self._document(stored.document_id).get(stored.number)
        if made is None or (made.start, made.end, sum(made.tokens.targets)) != (
            stored.start,
            stored.end,
            stored.target_tokens,
        ):
            raise IndexCorrupt(
                f"The tokens of passage {stored.id} are not those that were indexed; the index was "
                "written by an earlier version of Whence, or with another version of the "
                "tokenizer's library. Build the index again."
            )
        return made.tokens

    def _document(self, document_id: str) -> dict[int, Passage]:
        if document_id not in self._cut:
            document = self._read(document_id)
            passages = document_passages(document, self._tokenizer, max_length=self._max_length)
            self._cut[document_id] = {passage.number: passage for passage in passages}
        return self._cut[document_id]

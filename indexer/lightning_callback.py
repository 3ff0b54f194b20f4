"""The logger as a callback of Lightning.

    log = Logger(module.model, "log", accumulation=trainer_accumulation)
    Trainer(callbacks=[LightningLogger(log)]).fit(module, loader)

Batches are mappings that carry the documents' ids under ``document_id``; the module must not hand
them to the model.
"""

from collections.abc import Mapping
from typing import Any

from indexer.logger import Logger
from influence.errors import InvalidInput

try:
    from lightning.pytorch import Callback
except ImportError as error:
    raise ImportError(
        "Lightning is not installed, and its callback was asked for. Install it: pip install "
        "lightning."
    ) from error


class LightningLogger(Callback):
    """See the module.

    Args:
        log: Entered when training begins, left when it ends.
        column: Of the ids in the batches.
    """

    def __init__(self, log: Logger, *, column: str = "document_id") -> None:
        self._log = log
        self._column = column
        self._batch: Any = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to log."""
        self._log.__enter__()

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the batch until its gradients are there."""
        self._batch = batch

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        """Log it.

        Raises:
            InvalidInput: It has no ids.
        """
        if not isinstance(self._batch, Mapping) or self._column not in self._batch:
            raise InvalidInput(
                f"The batch is no mapping with {self._column}, so nothing says whose gradients "
                "these are. Have the loader add the ids."
            )
        self._log(self._batch[self._column], self._batch)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """End the log."""
        self._log.__exit__(None, None, None)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """End the log where training did."""
        self._log.__exit__(None, None, None)

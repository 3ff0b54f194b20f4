"""The logger as a callback of `transformers.Trainer`, which also records the training.

    log = Logger(model, "log", accumulation=args.gradient_accumulation_steps)
    Trainer(model, args, train_dataset=data, callbacks=[LoggerCallback(log)]).train()

The batches must carry the documents' ids: a column named ``document_id`` of integers, which the
callback takes out before the model sees it (`TrainingArguments(remove_unused_columns=False)` leaves
it in). At every save Adam's second moments go beside the checkpoint; at the end the data order and
`training.json` into the output folder, so that `whence index --method source` has all it needs.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from indexer.logger import Logger
from indexer.record_import import record_of_trainer
from indexer.second_moments import write_second_moments
from indexer.training_record import DATA_ORDER, write_record
from influence.errors import InvalidInput


class LoggerCallback(TrainerCallback):
    """See the module.

    Args:
        log: Entered when training begins, left when it ends.
        column: Of the ids in the batches.
    """

    def __init__(self, log: Logger, *, column: str = "document_id") -> None:
        self._log = log
        self._column = column
        self._hooks = ExitStack()
        self._batch: dict[str, Any] = {}
        self._ids: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to log."""
        hook = self._log.model.register_forward_pre_hook(self._see, with_kwargs=True, prepend=True)
        self._hooks.callback(hook.remove)
        self._hooks.enter_context(self._log)

    def _see(self, module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        self._batch = dict(kwargs)
        self._ids = kwargs.get(self._column)
        return args, {name: value for name, value in kwargs.items() if name != self._column}

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log a batch whose gradients are accumulated."""
        self._take()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the last batch of a step."""
        self._take()

    def _take(self) -> None:
        if self._ids is None:
            raise InvalidInput(
                f"The batches have no column {self._column}, so nothing says whose gradients these "
                "are. Add it to the dataset, with integers, and set remove_unused_columns=False."
            )
        items = self._batch.get("num_items_in_batch")
        items = float(items) if isinstance(items, Tensor | int | float) else None
        self._log(self._ids, self._batch, denominator=items)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep Adam's second moments with the checkpoint."""
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        optimizer = kwargs["optimizer"]
        write_second_moments(self._log.model, getattr(optimizer, "optimizer", optimizer), folder)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End the log, and record the training if it left checkpoints."""
        self._hooks.close()
        directory = Path(str(args.output_dir))
        self._log.writer.write_data_order(directory / DATA_ORDER)
        if any(directory.glob("checkpoint-*/")):
            name = "sgd" if str(args.optim) == "sgd" else "adamw"
            record = record_of_trainer(directory, optimizer=name, weight_decay=args.weight_decay)
            write_record(directory, record)

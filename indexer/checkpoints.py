"""The checkpoints of a recorded training: one model in as many states, checked before any work."""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from indexer.training_record import (
    DATA_ORDER,
    SeenDocuments,
    data_order,
    read_record,
    second_moments_of,
)
from influence.atomic import file_sha256
from influence.errors import InvalidInput, ModelUnavailable, NumericalError
from influence.model import LoadedModel, load_model


class CheckpointFolder:
    """A folder with a record and its checkpoints.

    Args:
        directory: The folder.
        device: As of `load_model`.
        dtype: Likewise.

    Raises:
        InvalidInput: The record is missing or not sound; a checkpoint is missing or of another
            architecture than the last.
    """

    def __init__(self, directory: Path, *, device: str = "auto", dtype: str = "auto") -> None:
        self.directory = directory
        self.record = read_record(directory)
        self._device = device
        self._dtype = dtype
        self.last = self.load(len(self.record.checkpoints) - 1)
        self._check_architectures()

    def folder(self, number: int) -> Path:
        """Of a checkpoint."""
        return self.directory / self.record.checkpoints[number].folder

    def load(self, number: int) -> LoadedModel:
        """The model of a checkpoint.

        Raises:
            ModelUnavailable: It cannot be loaded.
            NumericalError: A weight is not finite: training had diverged.
            InvalidInput: Its tokenizer is not that of the last.
        """
        step = self.record.checkpoints[number].step
        loaded = load_model(self.folder(number), device=self._device, dtype=self._dtype)
        for name, values in loaded.model.named_parameters():
            if values.is_floating_point() and not torch.isfinite(values).all():
                raise NumericalError(
                    f"The checkpoint of step {step} has weights that are not finite, such as "
                    f"{name}: training had diverged. Take this checkpoint and later ones out of "
                    "the record."
                )
        last = getattr(self, "last", loaded)
        if loaded.tokenizer_sha256 != last.tokenizer_sha256:
            raise InvalidInput(
                f"The tokenizer of the checkpoint of step {step} is not that of the last, so the "
                "same text has other tokens there. Follow training from where the tokenizer is "
                "the same."
            )
        return loaded

    def second_moments(self, number: int) -> dict[str, Tensor]:
        """Adam's, by the names of the parameters.

        Raises:
            InvalidInput: The file cannot be read, or has values below 0 or not finite.
        """
        path = second_moments_of(self.folder(number))
        found = {}
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - safetensors: no mapping, so not iterable
                    found[name] = file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise InvalidInput(f"{path} cannot be read: {error}. Write it again.") from error
        for name, values in found.items():
            if not (torch.isfinite(values).all() and (values >= 0).all()):
                raise InvalidInput(
                    f"{path} has second moments of {name} that are below 0 or not finite. Take "
                    "this checkpoint out of the record."
                )
        return found

    def seen(self) -> Iterator[SeenDocuments]:
        """The lines of the data order."""
        return data_order(self.directory, self.record)

    def second_moments_sha256(self) -> list[str]:
        """Of the files, where they are used."""
        if not self.record.optimizer.preconditioned:
            return []
        folders = (self.folder(number) for number in range(len(self.record.checkpoints)))
        return [file_sha256(second_moments_of(folder)) for folder in folders]

    def data_order_sha256(self) -> str | None:
        """Of the file; None where there is none."""
        return file_sha256(self.directory / DATA_ORDER) if self.record.data_order else None

    def weights_sha256(self) -> dict[str, str]:
        """Of the files of each checkpoint's weights, by its step."""
        return {
            str(checkpoint.step): "+".join(
                file_sha256(file) for file in sorted(self.folder(number).glob("*.safetensors"))
            )
            for number, checkpoint in enumerate(self.record.checkpoints)
        }

    def _check_architectures(self) -> None:
        wanted = self._shapes(len(self.record.checkpoints) - 1)
        for number, checkpoint in enumerate(self.record.checkpoints):
            found = self._shapes(number)
            different = sorted(
                name for name in {*found, *wanted} if found.get(name) != wanted.get(name)
            )
            if different:
                name = different[0]
                raise InvalidInput(
                    f"The checkpoint of step {checkpoint.step} is of another architecture than "
                    f"the last: {name} is {found.get(name, 'missing')} there and "
                    f"{wanted.get(name, 'missing')} in the last. Follow one training of one model."
                )

    def _shapes(self, number: int) -> dict[str, list[int]]:
        shapes = {}
        for file in sorted(self.folder(number).glob("*.safetensors")):
            try:
                with safe_open(file, framework="pt") as stored:
                    for name in stored.keys():  # noqa: SIM118 - as above
                        shapes[name] = stored.get_slice(name).get_shape()
            except (OSError, SafetensorError) as error:
                raise ModelUnavailable(
                    f"{file} cannot be read: {error}. Put the whole checkpoint back."
                ) from error
        return shapes

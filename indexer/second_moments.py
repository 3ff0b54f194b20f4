"""Adam's second moments beside checkpoints, by the names of the parameters.

An index along a training preconditions with them (`influence.unrolled`). They are written while
training, or taken from the ``optimizer.pt`` that transformers.Trainer leaves in a checkpoint. That
one numbers parameters instead of naming them: those with weight decay first, in the order of the
model, then those without. By the Trainer's rule the latter are biases and norms, which have one
axis; numbers and shapes must fit, or nothing is taken.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from indexer.training_record import second_moments_of
from influence.atomic import write_bytes
from influence.errors import InvalidInput

OPTIMIZER = "optimizer.pt"
# What `torch.load` raises for anything but tensors and plain containers: nothing is run.
# Its class is named by way of torch, since no module here imports the library that unpickles.
UNREADABLE: tuple[type[Exception], ...] = (
    torch.serialization.pickle.UnpicklingError,  # pyright: ignore[reportPrivateImportUsage]
)


def write_second_moments(
    model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path
) -> Path | None:
    """Write those of an optimiser beside the folder of a checkpoint; None where it has none."""
    found = {
        name: state["exp_avg_sq"]
        for name, parameter in model.named_parameters()
        if "exp_avg_sq" in (state := optimizer.state.get(parameter, {}))
    }
    return _write(found, folder) if found else None


def convert_second_moments(folder: Path) -> Path | None:
    """Take those of a Trainer's checkpoint out of its ``optimizer.pt``; None where it is missing.

    Raises:
        InvalidInput: The file cannot be read, or is not that of this model under Adam.
    """
    path = folder / OPTIMIZER
    if not path.is_file():
        return None
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        groups = [group["params"] for group in saved["param_groups"]]
        moments = {number: state["exp_avg_sq"] for number, state in saved["state"].items()}
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    except (*UNREADABLE, OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"The second moments in {path} cannot be read ({type(error).__name__}). Record the "
            "optimiser that was used (--optimizer), or write them while training."
        ) from error
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if len(groups) == 2:
        named.sort(key=lambda item: item[1].dim() < 2)  # stable: each in the model's order
    numbers = [number for group in groups for number in group]
    fits = len(numbers) == len(named) and all(
        number in moments and moments[number].shape == p.shape
        for number, (_, p) in zip(numbers, named, strict=True)
    )
    if not fits:
        raise InvalidInput(
            f"{path} has {len(moments)} second moments in {len(groups)} groups, which do not fit "
            f"the {len(named)} parameters of the model one to one. Write them while training "
            "(docs/training.md)."
        )
    return _write(
        {name: moments[number] for number, (name, _) in zip(numbers, named, strict=True)}, folder
    )


def _write(moments: dict[str, Tensor], folder: Path) -> Path:
    path = second_moments_of(folder)
    whole = {name: m.detach().float().cpu().contiguous() for name, m in moments.items()}
    write_bytes(path, save(whole))
    return path

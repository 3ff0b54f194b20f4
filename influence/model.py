"""Load a causal language model with its tokenizer, and fingerprint both.

Two programs may compare gradients only if weights and tokenizer are the same; the sha256 of the
files says so. Weights are read from safetensors, never from pickle.
"""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D

from influence.adapters import base_of, combined_sha256, with_adapters
from influence.errors import InvalidInput, ModelUnavailable
from influence.layers import output_head
from influence.placement import is_sharded, is_spread, offloaded

DTYPES = ("float32", "bfloat16")
SPREAD = "spread"  # over all devices; what does not fit is offloaded

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for gradients.

    Attributes:
        model: In evaluation mode, on ``device``, which for a spread model is where its inputs go
            and its logits arrive. With dtype ``bfloat16`` the linear layers hold
            bfloat16 weights and everything else, the residual stream included, stays float32.
        tokenizer: Its fast tokenizer.
        name: Where it came from, as given.
        weights_sha256: Over the weight files, in the order of their names.
        tokenizer_sha256: Over the tokenizer as it is serialised, chat template included.
        context_length: Most tokens the model takes.
    """

    model: Any
    tokenizer: Any
    name: str
    weights_sha256: str
    tokenizer_sha256: str
    device: torch.device
    dtype: str
    context_length: int

    def autocast(self) -> torch.autocast:
        """The precision of the matrix products, as a context."""
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.dtype == "bfloat16"
        )

    @property
    def product_dtype(self) -> torch.dtype:
        """Dtype of the operands of matrix products."""
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32


def resolve_device(device: str) -> torch.device:
    """``auto`` is the first CUDA device where there is one, else the CPU.

    Raises:
        InvalidInput: A device that this machine does not have.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise InvalidInput(f"{device!r} is no device. Use auto, cpu, cuda or spread.") from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise InvalidInput(f"No CUDA device is visible, but {device} was asked for. Use cpu.")
    return resolved


def resolve_dtype(dtype: str) -> str:
    """``auto`` is float32 everywhere, until rankings in bfloat16 have been measured on a GPU.

    Raises:
        InvalidInput: Neither auto, float32 nor bfloat16.
    """
    if dtype == "auto":
        return "float32"
    if dtype not in DTYPES:
        raise InvalidInput(f"{dtype!r} is no dtype that is supported. Use auto or {DTYPES}.")
    return dtype


def load_model(
    model: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: str | None = None,
) -> LoadedModel:
    """Load a transformers causal language model.

    Args:
        model: A folder, or a name that transformers can resolve; or a folder of PEFT adapters,
            which go into the model that they name.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` …; ``spread`` puts the layers of a model
            on all devices in turn (transformers' ``device_map="auto"``), and needs accelerate.
        dtype: ``auto``, ``float32`` or ``bfloat16``.
        trust_remote_code: The model whose own Python code may run, by the very name under which its
            weights are loaded; None: none.

    Raises:
        ModelUnavailable: The folder or name holds no such model, or one that needs its own code.
        InvalidInput: Code of another model is trusted; an unknown device or dtype; adapters that
            are to be spread.
    """
    where = resolve_device("auto" if device == SPREAD else device)
    precision = resolve_dtype(dtype)
    name = str(model)
    base = base_of(name)
    if base is not None and device == SPREAD:
        raise InvalidInput(
            f"{name} holds PEFT adapters, which are not spread over devices. Merge them into "
            f"{base}, save that and give it, or choose one device."
        )
    whole = base or name  # where the weights of the model itself are
    has_tokenizer = base is None or (Path(name) / "tokenizer.json").is_file()
    if trust_remote_code not in (None, whole):
        raise InvalidInput(
            f"The code of {trust_remote_code} is trusted, and the model to load is {whole}. Name "
            "that one, if you have read its code, or none."
        )
    code: dict[str, Any] = {"trust_remote_code": trust_remote_code is not None}
    try:
        config = AutoConfig.from_pretrained(whole, **code)
        tokenizer = AutoTokenizer.from_pretrained(
            name if has_tokenizer else whole, use_fast=True, **code
        )
        loaded, found = AutoModelForCausalLM.from_pretrained(  # type: ignore[misc]
            whole,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            device_map="auto" if device == SPREAD else None,
            **code,
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelUnavailable(
            f"No causal language model with safetensors weights could be loaded from {whole}: "
            f"{str(error).splitlines()[0]} Give a folder with config.json, tokenizer.json and "
            "model.safetensors, or the name of a model that is in the local cache."
        ) from error
    if missing := sorted(found["missing_keys"]):  # transformers has filled them at random
        raise ModelUnavailable(
            f"The weights of {whole} lack {len(missing)} of the model's tensors, such as "
            f"{missing[0]}. Give the whole checkpoint of this very architecture."
        )
    sha256 = weights_sha256(whole, loaded)
    if base is not None:
        loaded, sha256 = with_adapters(loaded, name), combined_sha256(sha256, name)
    return prepare_model(
        loaded,
        tokenizer,
        name=name,
        weights_sha256=sha256,
        device=where,
        dtype=precision,
        context_length=_context_length(config),
    )


def prepare_model(
    model: Any,
    tokenizer: Any,
    *,
    name: str,
    weights_sha256: str,
    device: torch.device,
    dtype: str,
    context_length: int,
) -> LoadedModel:
    """Put a model that is already in memory on its device, in its precision.

    One that is spread or sharded stays where it is.
    """
    if not is_spread(model) and not is_sharded(model):
        model = model.to(device)
    if absent := offloaded(model):
        log.warning(
            "%d tensors of %s found no room and are offloaded, such as %s; they are read anew for "
            "every batch, and stay in memory from its forward to its backward pass",
            len(absent),
            name,
            absent[0],
        )
    model.eval()
    if dtype == "bfloat16":
        convert_products(model)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        name=name,
        weights_sha256=weights_sha256,
        tokenizer_sha256=tokenizer_sha256(tokenizer),
        device=device,
        dtype=dtype,
        context_length=context_length,
    )


def convert_products(model: nn.Module) -> None:
    """Give the linear layers bfloat16 weights, in place; all else stays float32.

    A head tied to the embedding is left alone, since the embedding feeds the residual stream.
    """
    head = output_head(model)
    for module in model.modules():
        if not isinstance(module, nn.Linear | Conv1D) or module is head:
            continue
        weight = module._parameters.get("weight")
        if weight is None or weight.is_floating_point():  # quantised ones stay as they are
            module.to(torch.bfloat16)


def _context_length(config: Any) -> int:
    for attribute in ("max_position_embeddings", "n_positions", "seq_length"):
        value = getattr(config, attribute, None)
        if isinstance(value, int) and value > 0:
            return value
    return 2**31 - 1


def weights_sha256(name: str, model: nn.Module) -> str:
    """Over the files of a folder; over the tensors, where the model came by name."""
    files = sorted(Path(name).glob("*.safetensors")) if Path(name).is_dir() else []
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    if not files:
        if absent := offloaded(model):
            raise ModelUnavailable(
                f"{len(absent)} tensors of {name} are offloaded, such as {absent[0]}, and cannot "
                "be fingerprinted in memory. Give the folder of the model instead of its name."
            )
        digest.update(state_sha256(model).encode())
    return digest.hexdigest()


def state_sha256(model: nn.Module) -> str:
    """sha256 over names and bytes of every parameter and buffer."""
    digest = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def tokenizer_sha256(tokenizer: Any) -> str:
    """Over everything that decides which ids a text becomes."""
    described = {
        "tokenizer": json.loads(tokenizer.backend_tokenizer.to_str()),
        "chat_template": tokenizer.chat_template,
        "special": {k: str(v) for k, v in sorted(tokenizer.special_tokens_map.items())},
    }
    # Truncation and padding are set by calls in passing; they are no part of the tokenizer.
    described["tokenizer"].pop("truncation", None)
    described["tokenizer"].pop("padding", None)
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

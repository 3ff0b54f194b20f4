"""Other tasks than causal language models: encoder-decoder, classifiers, any module."""

import pytest
import torch
import transformers as t
from torch import nn
from torch.nn.functional import cross_entropy

from influence.encoder import GradientEncoder
from influence.errors import InvalidInput, UnknownLayers
from influence.layers import coverage, select_layers
from influence.task import check_examples_apart, reached_layers
from influence.task_classification import (
    LabelledTokens,
    TextClassification,
    image_classification,
)
from influence.task_module import ModuleTask, class_margin
from influence.task_seq2seq import EncoderDecoderLoss, SequencePair


def _lively(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """Random weights everywhere, statistics of batch norms included."""
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.data += 0.2 * torch.randn(p.shape, generator=generator)
    for name, b in model.named_buffers():
        if "running" in name:
            b.data += 0.3 * torch.rand(b.shape, generator=generator)
    return model.eval()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("gated", [True, False])
def test_t5(tied, gated, against_autograd):
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
    model = _lively(t.T5ForConditionalGeneration(config))
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
    return _lively(t.BertForSequenceClassification(config))


TEXTS = [
    LabelledTokens([2, 7, 8, 9, 3], 2),
    LabelledTokens([2, 10, 11, 12, 13, 14, 15, 3], 0),
    LabelledTokens([2, 16, 3], 1),
]


@pytest.mark.parametrize("patterns", [["*"], ["*", "norms", "embeddings"]])
def test_bert_classifier(patterns, against_autograd):
    def loss(twin, text):
        ids, label = torch.tensor([text.input_ids]), torch.tensor([text.label])
        return twin(input_ids=ids, labels=label).loss

    checked = against_autograd(TextClassification(_bert(num_labels=3)), TEXTS, loss, patterns)
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


def test_vit(against_autograd):
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
    model = _lively(t.ViTForImageClassification(config))
    checked = against_autograd(image_classification(model), _images(8), _image_loss)
    assert checked.coverage.share_of_linear == 1.0
    assert any("patch_embeddings" in layer.name for layer in checked.basis.layers)


def test_resnet_of_transformers(against_autograd):
    torch.manual_seed(0)
    config = t.ResNetConfig(
        embedding_size=6,
        hidden_sizes=[8, 12],
        depths=[1, 1],
        layer_type="bottleneck",
        num_labels=3,
    )
    model = _lively(t.ResNetForImageClassification(config))
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
def test_a_small_resnet(patterns, against_autograd):
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
        image_classification(_lively(model)), _images(9), _image_loss, patterns
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
def test_convolutions_of_every_kind(kind, against_autograd):
    convolution = CONVOLUTIONS[kind]
    axes = len(convolution.kernel_size)
    model = nn.Sequential(
        _lively(convolution, seed=3),
        nn.ReLU(inplace=True),
        nn.Flatten(1),
        nn.LazyLinear(1),
    )
    generator = torch.Generator().manual_seed(2)
    shape = (convolution.in_channels, *(7, 6, 5)[:axes])
    examples = [torch.randn(shape, generator=generator) for _ in range(3)]
    torch.manual_seed(7)  # of the lazy layer: outputs near zero by chance have gradients near zero
    model(torch.stack(examples))  # the lazy layer finds its width
    task = ModuleTask(model, lambda module, x: module(x).square().sum(dim=1))
    checked = against_autograd(
        task, examples, lambda twin, x: twin(x[None].double()).square().sum(), ["0*"]
    )
    assert len(checked.basis.layers) == convolution.groups
    assert checked.basis.layers[-1].name == (
        "0" if convolution.groups == 1 else f"0.{convolution.groups - 1}"
    )


def _mlp_examples(width: int, count: int = 3):
    generator = torch.Generator().manual_seed(4)
    return [(torch.randn(width, generator=generator), i % 3) for i in range(count)]


def _module_task(model, **settings):
    return ModuleTask(
        model,
        lambda module, batch: cross_entropy(module(batch[0]), batch[1], reduction="none"),
        **settings,
    )


def _module_loss(twin, example):
    return cross_entropy(twin(example[0][None].double()), torch.tensor([example[1]]))


@pytest.mark.parametrize("activation", [nn.ReLU(inplace=True), nn.Tanh(), nn.SiLU(inplace=True)])
def test_a_sequential_with_activations_in_place(activation, against_autograd):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), activation, nn.Linear(8, 7), activation, nn.Linear(7, 3))
    checked = against_autograd(_module_task(_lively(model)), _mlp_examples(5), _module_loss)
    assert checked.coverage.share_of_linear == 1.0


def test_a_layer_called_several_times_adds_up(against_autograd):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(6, 6)
            self.out = nn.Linear(6, 3)

        def forward(self, x):
            for _ in range(3):
                x = torch.tanh(self.inner(x))
            return self.out(x)

    torch.manual_seed(0)
    against_autograd(_module_task(_lively(Recurrent())), _mlp_examples(6), _module_loss)


def test_linear_layers_that_share_a_weight_are_one_layer(against_autograd):
    torch.manual_seed(0)
    model = _lively(
        nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    )
    model[2].weight = model[0].weight
    checked = against_autograd(_module_task(model), _mlp_examples(6), _module_loss)
    assert [layer.name for layer in checked.basis.layers] == ["0", "4"]
    assert checked.coverage.share_of_linear == 1.0


def test_an_input_written_to_in_place_is_another_input(against_autograd):
    class Rewriting(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(5, 3)
            self.second = nn.Linear(5, 3)
            self.in_place = True

        def forward(self, x):
            x = x.clone()
            found = self.first(x)
            # Works while weights are frozen only; autograd gets the same in two tensors.
            x = x.mul_(2).add_(1) if self.in_place else 2 * x + 1
            return found + torch.tanh(self.second(x))

    def loss(twin, example):
        twin.in_place = False
        return _module_loss(twin, example)

    torch.manual_seed(0)
    checked = against_autograd(_module_task(_lively(Rewriting())), _mlp_examples(5), loss)
    assert checked.basis.leaders == {"first": "first", "second": "second"}


def test_what_runs_without_gradients_is_not_said_to_be_covered(caplog):
    class HalfFrozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Linear(5, 4)
            self.unused = nn.Linear(5, 4)
            self.aside = nn.Linear(5, 4)
            self.out = nn.Linear(4, 3)

        def forward(self, x):
            self.aside(x)  # leads nowhere
            with torch.no_grad():
                x = self.features(x)
            return self.out(x)

    model = HalfFrozen()
    task = _module_task(model)
    reached = reached_layers(task, select_layers(model), _mlp_examples(5)[0])
    assert [layer.name for layer in reached.layers] == ["out"]
    assert [layer.name for layer in reached.unreached] == ["features", "unused", "aside"]
    assert coverage(model, reached.layers).left_out == {"features": 24, "unused": 24, "aside": 24}
    with pytest.raises(UnknownLayers, match="depends on none of the 1"):
        reached_layers(task, select_layers(model, ["unused"]), _mlp_examples(5)[0])


def test_one_row_for_the_whole_batch_has_a_gradient_of_each_example(against_autograd):
    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.queries = nn.Parameter(torch.randn(1, 4, 5))
            self.project = nn.Linear(5, 5)
            self.out = nn.Linear(5, 3)

        def forward(self, x):
            return self.out((self.project(self.queries) * x[:, None]).tanh().sum(dim=1))

    torch.manual_seed(0)
    against_autograd(_module_task(_lively(Learned())), _mlp_examples(5), _module_loss)


def test_examples_that_influence_each_other_are_refused():
    class Mixing(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(5, 8)
            self.out = nn.Linear(8, 3)

        def forward(self, x):
            hidden = torch.tanh(self.inner(x))
            return self.out(hidden - hidden.mean(dim=0))

    model = Mixing()
    task = _module_task(model)
    reached = reached_layers(task, select_layers(model, ["inner"]), _mlp_examples(5)[0])
    with pytest.raises(InvalidInput, match="differ from those of each alone"):
        check_examples_apart(task, reached, _mlp_examples(5)[1:])


def test_sequence_first_inputs_are_refused():
    class SequenceFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(5, 8)
            self.out = nn.Linear(8, 3)

        def forward(self, x):  # [B, 4, 5] -> [4, B, 5]
            return self.out(torch.tanh(self.inner(x.transpose(0, 1)))).sum(dim=0)

    model = SequenceFirst()
    task = _module_task(model)
    generator = torch.Generator().manual_seed(4)
    examples = [(torch.randn(4, 5, generator=generator), i) for i in range(3)]
    reached = reached_layers(task, select_layers(model), examples[0])
    with pytest.raises(InvalidInput, match="differ from those of each alone"):
        check_examples_apart(task, reached, examples[:2])
    with pytest.raises(InvalidInput, match="4 rows for 3 examples"):
        check_examples_apart(task, reached, examples)


def test_a_loss_averaged_over_the_batch_is_refused():
    model = nn.Linear(5, 3)
    task = ModuleTask(model, lambda module, batch: cross_entropy(module(batch[0]), batch[1]))
    with pytest.raises(InvalidInput, match=r"shape \(\) for 1 examples"):
        reached_layers(task, select_layers(model), _mlp_examples(5)[0])


def test_a_measurement_is_differentiated_in_place_of_the_loss(new_basis, autograd):
    torch.manual_seed(0)
    model = _lively(nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)))
    task = _module_task(model, measurement=lambda m, batch: class_margin(m(batch[0]), batch[1]))
    examples = _mlp_examples(5)
    basis = new_basis(task, examples[0], ["0"])
    got = GradientEncoder(task, basis).encode(examples, measured=True)
    (layer,) = basis.layers

    def margin(twin):
        p = twin(examples[1][0][None].double()).softmax(dim=1)[0, examples[1][1]]
        return -(p.log() - (1 - p).log())

    gradient = autograd(model, margin)["0.weight"]
    want = (layer.p_out.double() @ gradient @ layer.p_in.double().T).flatten()
    coordinates = GradientEncoder(task, basis).coordinates(examples, measured=True)[0][1].double()
    assert (coordinates - want).norm() < 1e-5 * want.norm()
    assert float(got.losses[1]) == pytest.approx(float(margin(model.double()).detach()), rel=1e-5)

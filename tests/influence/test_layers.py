import pytest
from torch import nn

from influence.errors import UnknownLayers
from influence.layers import LinearLayer, coverage, linear_widths, output_head, select_layers


def test_all_layers_of_a_llama_but_its_head(new_llama):
    layers = select_layers(new_llama())
    assert len(layers) == 2 * 7
    assert layers[0] == LinearLayer("model.layers.0.self_attn.q_proj", 24, 24)
    assert layers[1] == LinearLayer("model.layers.0.self_attn.k_proj", 24, 12)
    assert layers[6] == LinearLayer("model.layers.0.mlp.down_proj", 40, 24)
    assert not any("lm_head" in layer.name for layer in layers)


def test_widths_of_a_gpt2_whose_weights_are_stored_transposed(new_gpt2):
    model = new_gpt2()
    layers = {layer.name: layer for layer in select_layers(model)}
    assert layers["transformer.h.0.attn.c_attn"].d_in == 24
    assert layers["transformer.h.0.attn.c_attn"].d_out == 72
    assert layers["transformer.h.1.mlp.c_proj"].parameters == 96 * 24
    assert len(layers) == 2 * 4


def test_patterns_choose_layers_in_the_order_of_the_model(new_llama):
    model = new_llama()
    chosen = select_layers(model, ["*.mlp.*", "model.layers.1.self_attn.o_proj"])
    every = [layer.name for layer in select_layers(model)]
    names = [layer.name for layer in chosen]
    assert len(names) == 7
    assert names == [name for name in every if name in names]


def test_the_head_only_by_its_full_name(new_llama):
    model = new_llama()
    assert select_layers(model, ["lm_head"])[0].name == "lm_head"
    with pytest.raises(UnknownLayers):
        select_layers(model, ["lm_*"])


def test_a_pattern_that_matches_nothing_names_what_is_near(new_llama):
    with pytest.raises(UnknownLayers, match=r"'\*\.mpl\.\*' matches none of the 15.*mlp"):
        select_layers(new_llama(), ["*", "*.mpl.*"])


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("kind", ["llama", "gpt2", "untied"])
def test_coverage_counts_every_parameter_once(kind, new_llama, new_gpt2):
    model = new_gpt2() if kind == "gpt2" else new_llama(tie_word_embeddings=kind != "untied")
    layers = select_layers(model)
    covered = coverage(model, layers)
    weights = sum(layer.parameters for layer in layers)
    assert covered.share_of_linear == 1.0
    assert covered.share_of_all == pytest.approx(weights / _count(model))
    # What is named as left out is all the rest, biases of covered layers aside.
    biases = sum(
        module.bias.numel()
        for layer in layers
        if (module := model.get_submodule(layer.name)).bias is not None
    )
    assert sum(covered.left_out.values()) + weights + biases == _count(model)
    assert ("lm_head" in covered.left_out) == (kind == "untied")


def test_what_is_not_covered_is_named(new_llama):
    model = new_llama()
    covered = coverage(model, select_layers(model, ["*.mlp.*"]))
    attention = 2 * (24 * 24 * 2 + 24 * 12 * 2)
    mlp = 2 * 3 * 24 * 40
    assert covered.share_of_linear == pytest.approx(mlp / (mlp + attention))
    assert covered.left_out["model.layers.0.self_attn.q_proj"] == 24 * 24
    assert covered.left_out["model.embed_tokens"] == 400 * 24
    assert covered.left_out["model.norm"] == 24


def test_matrices_of_unknown_modules_lower_the_share():
    """Fused experts are no nn.Linear; they must not be passed over in silence."""

    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(nn.init.zeros_(nn.Linear(6, 5).weight).clone())

    model = nn.ModuleDict({"linear": nn.Linear(3, 10, bias=False), "experts": Experts()})
    covered = coverage(model, select_layers(model))
    assert covered.left_out == {"experts": 30}
    assert covered.share_of_linear == 0.5


def test_modules_that_are_not_linear_have_no_widths():
    assert linear_widths(nn.Embedding(3, 4)) is None
    assert linear_widths(nn.Linear(3, 4)) == (3, 4)
    assert output_head(nn.Linear(3, 4)) is None

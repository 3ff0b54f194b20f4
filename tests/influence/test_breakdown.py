import pytest

from influence.breakdown import by_kind, by_layer, module_kind

KINDS = {
    "attention": """
        model.layers.0.self_attn.q_proj transformer.h.3.attn.c_attn transformer.h.3.attn.c_proj
        gpt_neox.layers.1.attention.query_key_value gpt_neox.layers.1.attention.dense
        transformer.h.0.self_attention.dense model.decoder.layers.0.self_attn.out_proj
        encoder.block.0.layer.0.SelfAttention.q decoder.block.0.layer.1.EncDecAttention.o
        bert.encoder.layer.0.attention.self.query bert.encoder.layer.0.attention.output.dense
        vit.encoder.layer.11.attention.attention.value transformer.layer.0.attention.q_lin
        base_model.model.model.layers.0.self_attn.v_proj.lora_A.default
        model.layers.0.self_attn.gate_proj model.decoder.layers.1.encoder_attn.k_proj
        model.language_model.layers.0.linear_attn.in_proj_qkvz""",
    "mlp": """
        model.layers.0.mlp.gate_proj model.layers.0.mlp.down_proj transformer.h.3.mlp.c_fc
        transformer.h.3.mlp.c_proj gpt_neox.layers.1.mlp.dense_4h_to_h model.decoder.layers.0.fc1
        encoder.block.0.layer.1.DenseReluDense.wi_0 encoder.block.0.layer.1.DenseReluDense.wo
        bert.encoder.layer.0.intermediate.dense bert.encoder.layer.0.output.dense
        distilbert.transformer.layer.0.ffn.lin1 model.layers.3.block_sparse_moe.experts.0.w1
        model.layers.3.mlp.experts.gate_up_proj model.layers.2.feed_forward.w2
        model.layers.0.mlp.gate model.layers.0.mlp.shared_expert.up_proj""",
    "other": "lm_head score classifier 0 2 conv1 layer1.0.conv2 fc model.embed_tokens features.3",
}


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for kind, names in KINDS.items() for name in names.split()]
)
def test_a_name_tells_the_kind(name, kind):
    assert module_kind(name) == kind


def test_kinds_add_up_to_the_whole():
    names = ["h.0.attn.c_attn", "h.0.mlp.c_fc", "h.0.mlp.c_proj", "extra"]
    parts = by_layer(names, [1.5, -0.25, 2.0, 0.125])
    assert [part.layer for part in parts] == names
    assert by_kind(parts) == {"attention": 1.5, "mlp": 1.75, "other": 0.125}
    assert by_kind(()) == {"attention": 0.0, "mlp": 0.0, "other": 0.0}


def test_a_part_without_a_layer_is_refused():
    with pytest.raises(ValueError):
        by_layer(["a", "b"], [1.0])

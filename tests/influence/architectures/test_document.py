"""The example of docs/architectures.md runs as it stands, and its scores make sense."""

import re
from pathlib import Path

import pytest
import torch

DOCUMENT = Path(__file__).parents[3] / "docs" / "architectures.md"


@pytest.fixture(scope="module")
def example():
    """What the code of the document leaves behind."""
    (code,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text("utf-8"), re.M | re.S)
    left: dict = {}
    exec(compile(code, str(DOCUMENT), "exec"), left)  # the document's own code
    return left


def test_an_image_is_explained_by_images_of_its_class(example):
    scores, labels = example["scores"], example["labels"]
    same = labels[48:, None] == labels[:48]
    assert scores.shape == (12, 48)
    own, others = (scores.masked_fill(~which, 0).sum(dim=1) for which in (same, ~same))
    assert (own / same.sum(dim=1) > others / (~same).sum(dim=1)).all()
    first = labels[:48][scores.argmax(dim=1)]
    assert (first == labels[48:]).float().mean() >= 0.9


def test_scores_are_those_of_dense_float64(example, autograd):
    """``qᵀ(Λ + λI)⁻¹g`` from explicit gradients, projections and eigenvalues alone."""
    basis, train, queries = (example[name] for name in ("fitted", "train", "queries"))
    layers = basis.basis.layers

    def coordinates(function, item):
        batch = (item[0][None].double(), item[1][None])
        gradients = autograd(example["model"], lambda twin: function(twin, batch).sum())
        blocks = []
        for layer in layers:
            gradient = gradients[f"{layer.name}.weight"].flatten(1)
            projected = layer.p_out.double() @ gradient @ layer.p_in.double().T
            damped = layer.eigenvalues + 0.1 * layer.eigenvalues.mean()
            blocks.append((projected / damped.sqrt()).flatten())
        return torch.cat(blocks)

    task = example["task"]
    q = coordinates(task._measurement, queries[0])
    for n in (0, 1, 2):
        want = q @ coordinates(task._loss, train[n])
        torch.testing.assert_close(example["scores"][0, n].double(), want, rtol=1e-3, atol=1e-6)

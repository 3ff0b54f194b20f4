"""TRAK and representation similarity against their definitions, on the digits."""

import numpy as np
import torch
from numpy.testing import assert_allclose
from torch.func import functional_call, grad, vmap

from evaluation.comparators import Representation, Trak
from evaluation.digits import margins
from evaluation.methods import Dampings


def test_trak_is_its_formula_on_gradients_of_margins(digits):
    subject = digits.subjects[0]
    model = subject.task.model
    layers = {n: p.detach() for n, p in model.named_parameters()}

    def margin(weights, image, label):
        logits = functional_call(model, {**layers, **weights}, (image[None],))
        return margins(logits, label[None])[0]

    weights = {n: p for n, p in layers.items() if p.dim() == 2}

    def gradients(examples):
        images = torch.stack([image for image, _ in examples])
        labels = torch.tensor([label for _, label in examples])
        found = vmap(grad(margin), (None, 0, 0))(weights, images, labels)
        p = model(images).softmax(dim=1)[torch.arange(len(labels)), labels]
        return torch.cat([g.flatten(1) for g in found.values()], dim=1).double(), p.detach()

    train, p = gradients(subject.examples)
    asked, _ = gradients(subject.queries[:3])
    method = Trak(dims=20, seed=5)
    generator = torch.Generator().manual_seed(5)
    projection = torch.randn(train.shape[1], 20, generator=generator).double() / 20**0.5
    features = train @ projection
    covariance = features.T @ features / len(features)
    damped = covariance + 0.1 * covariance.trace() / 20 * torch.eye(20).double()
    expected = asked @ projection @ torch.linalg.solve(damped, features.T) * (1 - p).double()
    fitted = method.fit(subject)
    got = fitted.scores(fitted.capture(subject.queries[:3]), Dampings(layer=0.1))
    scale = float(expected.abs().max())
    assert_allclose(got.influence, expected.numpy(), atol=1e-4 * scale)  # gradients in float32
    assert np.abs(got.relative).max() <= 1 + 1e-9


def test_representations_are_what_the_last_layer_reads(digits):
    subject = digits.subjects[0]
    images = torch.stack([image for image, _ in subject.examples])
    hidden = subject.task.model[:-1](images).detach().double()
    hidden /= hidden.norm(dim=1, keepdim=True).clamp(min=1e-9)  # of dead units only: 0
    fitted = Representation().fit(subject)
    got = fitted.scores(fitted.capture(subject.examples[:4]), Dampings())
    assert_allclose(got.influence, (hidden[:4] @ hidden.T).numpy(), atol=1e-5)

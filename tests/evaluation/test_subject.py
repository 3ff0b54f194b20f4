"""A subject's gradients are autograd's, for both tasks, and a fit is the indexer's own."""

import torch
from torch.testing import assert_close

from evaluation.digits import margins
from evaluation.subject import UNSKETCHED, captured
from indexer.examples import fit_examples
from influence.encoder import GradientEncoder
from influence.manifest import IndexSettings


def autograd(subject, value):
    """Of every attributed weight, one after the other."""
    weights = [
        subject.task.model.get_submodule(layer.name).weight for layer in subject.whole.layers
    ]
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, weights)])


def test_gradients_of_digits_are_those_of_autograd(digits):
    (subject,) = digits.subjects
    got = subject.gradients(subject.examples[:3])
    asked = subject.gradients(subject.queries[:2], measured=True)
    model = subject.task.model.requires_grad_(True)
    for (image, label), row in zip(subject.examples[:3], got, strict=True):
        loss = -model(image).log_softmax(dim=0)[label]
        assert_close(row, autograd(subject, loss), rtol=1e-4, atol=1e-5)
    for (image, label), row in zip(subject.queries[:2], asked, strict=True):
        margin = margins(model(image[None]), torch.tensor([label]))[0]
        # A proponent lowers what is measured, and a margin is better when higher.
        assert_close(row, -autograd(subject, margin), rtol=1e-4, atol=1e-4)


def test_gradients_of_language_are_those_of_autograd(language):
    (subject,) = language.subjects
    got = subject.gradients(subject.queries[:3], measured=True)
    model = subject.task.model.requires_grad_(True)
    for sequence, row in zip(subject.queries[:3], got, strict=True):
        ids = torch.tensor([sequence.input_ids])
        log_probs = model(input_ids=ids).logits[0, :-1].log_softmax(dim=1)
        picked = log_probs[torch.arange(len(sequence) - 1), ids[0, 1:]]
        loss = -(picked * torch.tensor(sequence.targets[1:])).sum()
        assert_close(row, autograd(subject, loss), rtol=1e-3, atol=1e-4)


def test_a_capture_is_what_an_index_of_all_examples_would_hold(language):
    (subject,) = language.subjects
    settings = IndexSettings(rank=4, dims=UNSKETCHED)
    got = captured(subject, settings)
    basis = fit_examples(subject.task, subject.examples, settings).basis
    expected, _ = GradientEncoder(subject.task, basis).coordinates(subject.examples)
    assert_close(got.training, expected)
    assert got.coordinates(subject.queries).shape == (20, basis.coordinates)


def test_drawn_labels_give_the_gauss_newton_matrix_of_a_classifier(digits):
    """On average over draws; its trace is ``Σ p_c ‖∇(-log p_c)‖²``, whatever the labels are."""
    (subject,) = digits.subjects
    rows = subject.gauss_newton(subject)
    trace = float(rows.square().sum()) / len(subject.examples)
    model = subject.task.model
    images = torch.stack([image for image, _ in subject.examples])
    with torch.no_grad():
        p = model(images).softmax(dim=1)
    energies = torch.stack(
        [
            subject.gradients([(image, label) for image in images]).square().sum(dim=1)
            for label in range(10)
        ],
        dim=1,
    )
    means = (p * energies).sum(dim=1)
    variance = (p * energies.square()).sum(dim=1) - means.square()
    deviation = float(variance.sum()) ** 0.5 / len(images)
    assert abs(trace - float(means.mean())) < 4 * deviation

"""Every method against dense algebra on full gradients, and the same bits every time."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from evaluation.catalogue import FULL_EKFAC, methods_of, whence
from evaluation.methods import Dampings, FullGradient, by_conjugate_gradients, by_lissa, exact
from evaluation.span import Span
from evaluation.subject import UNSKETCHED, Subject
from influence.errors import InvalidInput
from influence.whitening import LowRankWhitening

LANGUAGE = {method.name: method for method in methods_of("language")}
DIGITS = {method.name: method for method in methods_of("digits")}


def close(got, expected, share):
    """Within a share of the largest score."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert_allclose(got, expected, rtol=0, atol=share * np.abs(expected).max())


def dense_solve(hessian, vectors, *, damping):
    damped = hessian + damping * torch.eye(len(hessian), dtype=hessian.dtype)
    return torch.linalg.solve(damped, vectors.T).T


def scored(method, subject, dampings):
    fitted = method.fit(subject)
    return fitted.scores(fitted.capture(subject.queries), dampings)


@pytest.mark.parametrize("rows", [None, 30, 90])  # fewer and more than coordinates
def test_in_the_span_curvature_is_diagonal_and_inner_products_are_kept(rows):
    generator = torch.Generator().manual_seed(0)
    training = torch.randn(20, 50, generator=generator)
    curved = None if rows is None else torch.randn(rows, 50, generator=generator)
    span = Span(training, curved)
    r = (training if curved is None else curved).double()
    vectors = torch.randn(3, 50, generator=generator)
    inside, train = span.coordinates(vectors), span.coordinates(training)
    close(inside @ train.T, vectors.double() @ training.double().T, 1e-6)
    damping = 0.3 * span.mean_eigenvalue
    expected = dense_solve(r.T @ r / 20, vectors.double(), damping=damping) @ training.double().T
    # The Gram matrix of float32 rows is exact in float64; only 1e-10 of its trace is cut.
    close(inside / (span.eigenvalues + damping) @ train.T, expected, 1e-6)
    values = torch.linalg.eigvalsh(r.T @ r / 20)
    assert span.mean_eigenvalue == pytest.approx(float(values[values > values[-1] * 1e-10].mean()))


@pytest.mark.parametrize("gauss_newton", [False, True])
def test_an_exact_solve_is_the_dense_one(digits, gauss_newton):
    (subject,) = digits.subjects
    method = FullGradient("exact", exact, gauss_newton=gauss_newton)
    got = scored(method, subject, Dampings(0.1))
    train = subject.gradients(subject.examples).double()
    asked = subject.gradients(subject.queries, measured=True).double()
    rows = subject.gauss_newton(subject).double() if gauss_newton else train
    hessian = rows.T @ rows / len(train)
    values = torch.linalg.eigvalsh(hessian)
    damping = 0.1 * float(values[values > values[-1] * 1e-10].mean())
    solved = dense_solve(hessian, asked, damping=damping)
    expected = solved @ train.T
    # Directions below 1e-10 of the trace are cut; the damping is far above them.
    close(got.influence, expected, 1e-4)
    own = (dense_solve(hessian, train, damping=damping) * train).sum(dim=1)
    norms = ((solved * asked).sum(dim=1)[:, None] * own).sqrt()
    # An example that is fitted perfectly has no gradient and scores 0.
    close(got.relative, (expected / norms).nan_to_num(), 1e-4)


def test_conjugate_gradients_and_lissa_come_to_the_exact_scores(language):
    (subject,) = language.subjects
    expected = scored(FullGradient("exact", exact), subject, Dampings(1.0))
    for solver in (by_conjugate_gradients, by_lissa):
        got = scored(FullGradient("iterative", solver), subject, Dampings(1.0))
        # LiSSA's flattest direction shrinks by (1 - λ/s)^500; λ is the mean eigenvalue and s the
        # largest of 40, so at most by e^-12.
        close(got.influence, expected.influence, 1e-3)


def test_dot_and_cosine_are_products_of_gradients(language):
    (subject,) = language.subjects
    train = subject.gradients(subject.examples)
    asked = subject.gradients(subject.queries, measured=True)
    dot = scored(FullGradient("dot"), subject, Dampings())
    cosine = scored(FullGradient("cosine", cosine=True), subject, Dampings())
    expected = torch.nn.functional.cosine_similarity(asked[:, None], train[None], dim=2)
    close(dot.influence, (asked @ train.T), 1e-4)
    close(cosine.influence, expected, 1e-4)


def test_full_size_ekfac_is_its_definition(digits):
    """In the eigenbasis of both covariances, divided by mean squares and their damping."""
    (subject,) = digits.subjects
    got = scored(DIGITS[FULL_EKFAC], subject, Dampings(0.1, math.inf))
    model = subject.task.model.requires_grad_(True)
    inputs, outputs = {}, {}

    def watch(name):
        def keep(module, x, y):
            inputs[name] = x[0].detach()
            y.register_hook(lambda g: outputs.__setitem__(name, g))

        return keep

    handles = [
        module.register_forward_hook(watch(name))
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    batch = subject.task.batch(subject.examples)
    subject.task.losses(batch).sum().backward()
    for handle in handles:
        handle.remove()
    widths = [layer.coordinates for layer in subject.whole.layers]
    train = subject.gradients(subject.examples).double().split(widths, dim=1)
    asked = subject.gradients(subject.queries, measured=True).double().split(widths, dim=1)
    expected = torch.zeros(len(subject.queries), len(subject.examples)).double()
    for layer, z, q in zip(subject.whole.layers, train, asked, strict=True):
        a, g = inputs[layer.name].double(), outputs[layer.name].double()
        v_in, v_out = torch.linalg.eigh(a.T @ a)[1], torch.linalg.eigh(g.T @ g)[1]
        shape = (-1, g.shape[1], a.shape[1])
        z = torch.einsum("noi,op,iq->npq", z.view(shape), v_out, v_in).flatten(1)
        q = torch.einsum("noi,op,iq->npq", q.view(shape), v_out, v_in).flatten(1)
        values = z.square().mean(dim=0)
        expected += q / (values + 0.1 * values.mean()) @ z.T
    # Vectors are kept as fp16: 2⁻¹¹ of each number, far less of their sums; pixels that are always
    # 0 leave directions without any gradient, in which bases may differ at no price.
    close(got.influence, expected, 2e-3)


def test_dims_and_joint_damping_are_those_of_the_basis(language):
    (subject,) = language.subjects
    method = whence(8, 256, joint=True)
    got = scored(method, subject, Dampings(0.1, 3.0))
    fitted = method.fit(subject)
    basis = fitted._captured.basis
    roots = [
        (layer.eigenvalues + 0.1 * layer.eigenvalues.mean()).rsqrt().flatten()
        for layer in basis.layers
    ]
    roots = torch.cat(roots).float()
    sketch = type(basis.sketch)(basis.coordinates, 256, seed=0, device=torch.device("cpu"))
    z = sketch.forward(fitted._captured.training * roots)
    q = sketch.forward(fitted.capture(subject.queries) * roots)
    joint = LowRankWhitening.fit(z, damping=3.0)
    expected = (joint.forward(q) @ joint.forward(z).T).numpy()
    close(got.influence, expected, 2e-3)  # fp16
    assert fitted.bytes_a_passage == 2 * 256 + 4


@pytest.mark.parametrize("name", LANGUAGE)
def test_the_same_query_has_the_same_bits_a_hundred_times(language, name):
    method, (subject,) = LANGUAGE[name], language.subjects
    fitted = method.fit(subject)
    query = subject.queries[3:4]
    first = fitted.scores(fitted.capture(query), method.grid[0])
    for time in range(99):
        if time % 20 == 0:  # passes of the model, which all methods share, have their own test
            captured = fitted.capture(query)
        again = fitted.scores(captured, method.grid[0])
        assert (again.influence == first.influence).all()
        assert (again.relative == first.relative).all()


def test_the_same_query_has_the_same_gradient_a_hundred_times(language):
    (subject,) = language.subjects
    query = subject.queries[3:4]
    first = subject.gradients(query, measured=True)
    for _ in range(99):
        assert torch.equal(subject.gradients(query, measured=True), first)


def test_a_task_without_drawn_labels_has_no_gauss_newton_matrix(language):
    whole = language.subjects[0]
    subject = Subject(whole.task, whole.examples)
    with pytest.raises(InvalidInput, match="Gauss-Newton"):
        LANGUAGE["Gauss-Newton, exact solve"].fit(subject)


def test_names_say_what_is_not_the_default():
    assert whence(16, UNSKETCHED, hessian="raw").name == "Whence: rank 16, unsketched, hessian raw"
    assert len(LANGUAGE) == len(methods_of("language"))

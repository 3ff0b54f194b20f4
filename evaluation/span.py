"""The curvature of full gradients, written where it is diagonal and small.

Nothing matters to a score under ``H = RᵀR / N`` but inner products: what stands at right angles to
all rows of ``R`` and to all training gradients ``Z`` meets neither. So gradients of ``k`` numbers
are written in an orthonormal basis of the span of these ``m`` rows, and there in the eigenbasis of
``H``. This is a rotation and no approximation: an exact solve, conjugate gradients and LiSSA take
the same steps to the same result on ``m`` numbers instead of ``k``.

With ``S = U diag(s) Uᵀ`` the Gram matrix of rows ``X [m, k]``, the basis of their span is
``diag(s)^-½ Uᵀ X``. It is never formed: ``v`` becomes ``diag(s)^-½ Uᵀ (X v)``.
"""

import torch
from torch import Tensor

CHUNK = 8192  # coordinates that are float64 at a time
SMALLEST = 1e-10  # of the largest eigenvalue of the Gram matrix; float32 gradients know no less


class Span:
    """Coordinates in the eigenbasis of ``RᵀR / N``, in the span of ``R`` and ``Z``.

    Args:
        training: ``Z [N, k]`` float32.
        rows: ``R [n, k]`` float32; None is ``Z`` itself, the empirical Fisher.
    """

    def __init__(self, training: Tensor, rows: Tensor | None = None) -> None:
        self._rows = training if rows is None else torch.cat([rows, training])
        m, k = self._rows.shape
        self._change = None  # every coordinate as it is, where there are no more of them than rows
        if m < k:
            values, vectors = torch.linalg.eigh(_gram(self._rows, self._rows))
            sound = values > values[-1].clamp(min=1e-300) * SMALLEST
            self._change = vectors[:, sound] / values[sound].sqrt()  # [m, m']
        inside = self.coordinates(training if rows is None else rows)
        values, rotation = torch.linalg.eigh(inside.T @ inside / len(training))
        self.eigenvalues = values.clamp(min=0)  # [m']
        self._change = rotation if self._change is None else self._change @ rotation

    @property
    def mean_eigenvalue(self) -> float:
        """Mean of the positive ones: what a damping is a fraction of.

        The mean over all ``k`` coordinates would shrink as a model grows while the spectrum that
        the examples show stays as it is.
        """
        positive = self.eigenvalues[self.eigenvalues > self.eigenvalues[-1] * SMALLEST]
        return float(positive.mean()) if len(positive) else 0.0

    def coordinates(self, vectors: Tensor) -> Tensor:
        """``[n, k]`` -> ``[n, m']`` float64; inner products with rows of the span are kept."""
        m, k = self._rows.shape
        inside = _gram(vectors, self._rows) if m < k else vectors.double()
        return inside if self._change is None else inside @ self._change


def _gram(a: Tensor, b: Tensor) -> Tensor:
    """``A Bᵀ`` in float64 of float32 rows ``[m, k]``, ``[n, k]``, a few coordinates at a time."""
    total = torch.zeros(len(a), len(b), dtype=torch.float64)
    for x, y in zip(a.split(CHUNK, dim=1), b.split(CHUNK, dim=1), strict=True):
        total += x.double() @ y.double().T
    return total

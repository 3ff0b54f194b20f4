"""The methods that a table compares."""

import math

from evaluation.comparators import Representation, Trak
from evaluation.methods import (
    Drawn,
    FullGradient,
    Lexical,
    Method,
    Projected,
    by_conjugate_gradients,
    by_lissa,
    exact,
)
from evaluation.subject import UNSKETCHED
from evaluation.trial import Name
from influence.manifest import IndexSettings

FULL_EKFAC = "EK-FAC, full size"
FULL_RANK = 128  # more than any layer of the tasks is wide
SOLVER_DAMPINGS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
JOINT_DAMPINGS = (0.3, 1.0, 3.0, 10.0)

REFERENCES: tuple[Method, ...] = (
    FullGradient("gradient dot product"),
    FullGradient("gradient cosine", cosine=True),
    FullGradient("empirical Fisher, exact solve", exact, dampings=SOLVER_DAMPINGS),
    FullGradient(
        "empirical Fisher, conjugate gradients", by_conjugate_gradients, dampings=SOLVER_DAMPINGS
    ),
    FullGradient("empirical Fisher, LiSSA", by_lissa, dampings=SOLVER_DAMPINGS),
    FullGradient("Gauss-Newton, exact solve", exact, gauss_newton=True, dampings=SOLVER_DAMPINGS),
)


def methods_of(task: Name) -> list[Method]:
    """Every method that applies to a task, those that share a fit beside each other."""
    chosen: list[Method] = [Drawn()]
    if task == "language":
        chosen.append(Lexical())
    chosen += [
        # Labels of a regression cannot be drawn: no Gauss-Newton rows.
        *(REFERENCES[:-1] if task == "diabetes" else REFERENCES),
        Projected(FULL_EKFAC, projected(rank=FULL_RANK)),
        Projected("K-FAC, full size", projected(rank=FULL_RANK, hessian="kfac")),
        Trak(),
        Representation(),
        whence(64, UNSKETCHED),
        whence(64, 4096),
        whence(64, 4096, joint=True),
        whence(64, 1024),
        whence(64, 1024, joint=True),
        whence(32, 4096),
        whence(32, 4096, joint=True),
        whence(16, 4096),
        whence(16, 4096, joint=True),
        whence(64, 4096, joint=True, hessian="kfac"),
        whence(64, 4096, joint=True, hessian="identity"),
        whence(64, 4096, joint=True, projection="random"),
        whence(16, UNSKETCHED, hessian="raw"),
        whence(16, UNSKETCHED, hessian="raw", projection="random"),
    ]
    if task == "language":
        chosen.append(whence(64, 4096, joint=True, labels="sampled"))
    return chosen


# A large model has too many weights for gradients of all of them to be kept: the reference is what
# the largest rank of an index gives without a sketch.
LARGE_REFERENCE = "Whence: rank 64, unsketched"


def methods_of_large() -> list[Method]:
    """Those that a model of a hundred million parameters and thousands of examples can bear."""
    return [
        Drawn(),
        Lexical(),
        Representation(),
        whence(64, UNSKETCHED),
        whence(64, UNSKETCHED, hessian="kfac"),
        whence(64, UNSKETCHED, hessian="identity"),
        whence(64, 16_384),
        whence(64, 16_384, joint=True),
        whence(64, 4096),
        whence(64, 4096, joint=True),
        whence(16, 4096),
        whence(16, 4096, joint=True),
    ]


def whence(rank: int | str, dims: int, *, joint: bool = False, **settings: object) -> Projected:
    """An index of Whence under a name that says what is not the default."""
    parts = [f"rank {rank}", "unsketched" if dims == UNSKETCHED else f"D {dims:,}"]
    parts += [f"{key} {value}" for key, value in settings.items()]
    parts += ["joint"] if joint else []
    # The identity has no eigenvalues that a damping could be added to.
    dampings = {"dampings": (1.0,)} if settings.get("hessian") == "identity" else {}
    return Projected(
        f"Whence: {', '.join(parts)}",
        projected(rank=rank, dims=dims, **settings),
        joint_dampings=JOINT_DAMPINGS if joint else (math.inf,),
        **dampings,
    )


def projected(**values: object) -> IndexSettings:
    """Settings of an index that is not sketched unless they say so."""
    return IndexSettings.model_validate({"dims": UNSKETCHED, **values})

"""Tables of the studies on the digits, as Markdown, and the curve as SVG."""

from collections.abc import Sequence

from evaluation.brittleness import Drop
from evaluation.lds import Interval
from evaluation.plot import line_chart
from evaluation.studies import Curation


def brittleness_table(protocol: str, curve: Sequence[Drop]) -> str:
    """A line for each ranking, for each ``k`` the drop and the flips."""
    ks = sorted({drop.k for drop in curve})
    found = {(drop.ranking, drop.k): drop for drop in curve}
    head = ["ranking", *(f"{what}, k = {k}" for k in ks for what in ("drop", "flips"))]
    lines = [protocol, "", _line(head), _rule(head)]
    for name in dict.fromkeys(drop.ranking for drop in curve):
        cells = [
            text
            for k in ks
            for text in (_interval(found[name, k].drop), f"{found[name, k].flips:.0%}")
        ]
        lines.append(_line([name, *cells]))
    return "\n".join(lines) + "\n"


def brittleness_plot(curve: Sequence[Drop]) -> str:
    """The drop of every ranking over ``k``, as SVG."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for drop in curve:
        lines.setdefault(drop.ranking, []).append((float(drop.k), drop.drop.mean))
    drops = [drop.drop.mean for drop in curve]
    return line_chart(
        lines,
        title="Margin lost without the first k proponents",
        across="k",
        up="drop",
        bottom=min(0.0, *drops),
        top=max(0.1, *drops),
    )


def curation_plot(found: Curation) -> str:
    """What training on the most valuable share gave, over the share, as SVG."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for kept in found.kept:
        lines.setdefault(kept.valuation, []).append((kept.share, kept.measured.mean))
    whole = lines.pop("everything")
    lines = {name: [*line, *whole] for name, line in lines.items()}
    margins = [margin for line in lines.values() for _, margin in line]
    return line_chart(
        lines,
        title="Margin after training on the most valuable share",
        across="share kept",
        up="margin",
        bottom=min(0.0, *margins),
        top=max(0.1, *margins),
    )


def curation_table(found: Curation) -> str:
    """A line for each valuation: what training on its shares gave, and the AUCs."""
    shares = sorted({kept.share for kept in found.kept if kept.share < 1}, reverse=True)
    whole = next(kept for kept in found.kept if kept.share == 1)
    head = ["valuation", *(f"{share:.0%} kept: margin, right" for share in shares)]
    head += ["AUC, wrong labels", "AUC, poisoned"]
    lines = [
        found.protocol,
        f"Trained on everything: margin {_interval(whole.measured)}, right {whole.right:.1%}.",
        "",
        _line(head),
        _rule(head),
    ]
    for name, auc in found.flipped_auc.items():
        of_name = {kept.share: kept for kept in found.kept if kept.valuation == name}
        cells = [f"{_interval(of_name[s].measured)}, {of_name[s].right:.1%}" for s in shares]
        cells += [f"{auc:.3f}", f"{found.poisoned_auc[name]:.3f}"]
        lines.append(_line([name, *cells]))
    return "\n".join(lines) + "\n"


def _interval(interval: Interval) -> str:
    return f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(head: Sequence[str]) -> str:
    return _line(["---", *["---:"] * (len(head) - 1)])

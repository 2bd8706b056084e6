"""BD-rates of sequences, classes (data sets) and overall, as Markdown and LaTeX.

A class has two figures: the mean of its sequences' BD-rates, and the BD-rate of their mean curve. Refused sequences
enter neither; every refusal is listed. Overall is the mean over classes.
"""
from collections.abc import Callable, Iterable
from statistics import fmean
from typing import NamedTuple

from util.comparison.bd_rate import METHODS, MIN_OVERLAP, Refused, bd_rate
from util.comparison.curves import Codec, datasets, mean_curve
from util.errors import InputError


class Row(NamedTuple):
    """A line of the table.

    Attributes:
        label: sequence, class, or "Overall".
        kind: "sequence", "class" (mean of the sequences), "curve" (of their mean curve) or "overall".
        values: BD-rate in percent by method, None where refused.
        count: of how many sequences or classes it is the mean, and how many there are; None for one sequence.
    """
    label: str
    kind: str
    values: dict[str, float | None]
    count: tuple[int, int] | None = None


class Comparison(NamedTuple):
    """`rows` of `test` against `anchor` in `metric`, and the `refusals`, one reason per line."""
    anchor: str
    test: str
    metric: str
    rows: list[Row]
    refusals: list[str]


def compare(anchor: Codec, test: Codec, min_overlap: float = MIN_OVERLAP) -> Comparison:
    """BD-rates of two codecs over the sequences that both have.

    Raises:
        InputError: different metrics, or no sequence in common.
    """
    if anchor.metric != test.metric:
        raise InputError(f"{anchor.name} is measured in {anchor.metric} and {test.name} in {test.metric}; compare "
                         "reports of one metric")
    groups = datasets([anchor, test])
    if not groups:
        raise InputError(f"{anchor.name} and {test.name} have no sequence in common; measure the same ones")
    rows, refusals, means = [], [], []
    refusals += [f"{sequence}: only one of {anchor.name} and {test.name} has it"
                 for sequence in sorted(set(anchor.curves) ^ set(test.curves))]
    for dataset, sequences in groups.items():
        single = []
        for sequence in sequences:
            values, reasons = _rates(anchor, test, [sequence], min_overlap)
            single.append(Row(sequence, "sequence", values))
            refusals += [f"{sequence}: {reason}" for reason in reasons]
        accepted = [row.label for row in single if row.values[METHODS[0]] is not None]
        values, reasons = _rates(anchor, test, accepted, min_overlap) if accepted else (dict.fromkeys(METHODS), [])
        refusals += [f"mean curve of {dataset}: {reason}" for reason in reasons]
        means.append(_mean(dataset, "class", single))
        rows += [*single, means[-1], Row(dataset, "curve", values, means[-1].count)]
    rows.append(_mean("Overall", "overall", means))
    return Comparison(anchor.name, test.name, anchor.metric, rows, refusals)


def _rates(anchor: Codec, test: Codec, sequences: list[str], min_overlap: float
           ) -> tuple[dict[str, float | None], list[str]]:
    """BD-rate of the mean curves by method, and the reason if they are refused."""
    try:
        for sequence in sequences:
            frames = [codec.curves[sequence][0].frames for codec in (anchor, test)]
            if frames[0] != frames[1]:
                raise Refused(f"{anchor.name} has {frames[0]} frames and {test.name} {frames[1]}")
        curves = mean_curve(anchor, sequences), mean_curve(test, sequences)
        return {method: bd_rate(*curves, method, min_overlap, (anchor.name, test.name)) for method in METHODS}, []
    except (Refused, InputError) as reason:
        return dict.fromkeys(METHODS), [str(reason)]


def _mean(label: str, kind: str, rows: list[Row]) -> Row:
    known = [row for row in rows if row.values[METHODS[0]] is not None]
    values = {method: fmean(row.values[method] for row in known) if known else None for method in METHODS}
    return Row(label, kind, values, (len(known), len(rows)))


KIND_LABELS = {"sequence": "{}", "class": "**{}**, mean of {}", "curve": "**{}**, mean curve of {}",
               "overall": "**{}**, mean of {}"}


def markdown(comparison: Comparison, conventions: str) -> str:
    """A table with a column per interpolation, the refusals, and the conventions behind the figures."""
    lines = [f"BD-rate (%) of {comparison.test} against {comparison.anchor}, {comparison.metric}. {conventions}", "",
             "| sequence | " + " | ".join(METHODS) + " |", "|---|" + "---:|" * len(METHODS)]
    for row in comparison.rows:
        lines.append("| " + " | ".join([_label(row), *(_number(row.values[method]) for method in METHODS)]) + " |")
    if comparison.refusals:
        lines += ["", "Refused:", "", *(f"- {reason}" for reason in comparison.refusals)]
    return "\n".join(lines) + "\n"


def _label(row: Row) -> str:
    used, all_ = row.count or (1, 1)
    return KIND_LABELS[row.kind].format(row.label, used if used == all_ else f"{used} of {all_}")


def _number(value: float | None) -> str:
    return "refused" if value is None else f"{value:.2f}"


def latex(comparison: Comparison, conventions: str) -> str:
    """The same as a LaTeX tabular (package booktabs)."""
    lines = [f"% BD-rate (%) of {comparison.test} against {comparison.anchor}, {comparison.metric}. {conventions}",
             rf"\begin{{tabular}}{{l{'r' * len(METHODS)}}}", r"\toprule",
             " & ".join(["Sequence", *METHODS]) + r" \\", r"\midrule"]
    for row in comparison.rows:
        label = _escape(_label(row))
        label = label.replace("**", r"\textbf{", 1).replace("**", "}", 1)
        lines.append(" & ".join([label, *(_math(row.values[method]) for method in METHODS)]) + r" \\")
        if row.kind == "curve":
            lines.append(r"\midrule")
    lines += [r"\bottomrule", r"\end{tabular}", *(f"% refused: {reason}" for reason in comparison.refusals)]
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    for character in "&%$#_{}":
        text = text.replace(character, "\\" + character)
    return text


def _math(value: float | None) -> str:
    return "--" if value is None else f"${value:.2f}$"


def verdict_table(measured: Iterable[tuple[str, float | None]], published: dict[str, float],
                  verdict: Callable[[float, float], str]) -> str:
    """Markdown: our BD-rate beside the published one, per data set."""
    lines = ["| data set | measured | published | verdict |", "|---|---:|---:|---|"]
    for dataset, value in measured:
        paper = published.get(dataset)
        words = "not published" if paper is None else "refused" if value is None else verdict(value, paper)
        lines.append(f"| {dataset} | {_number(value)} | {'' if paper is None else f'{paper:.1f}'} | {words} |")
    return "\n".join(lines) + "\n"

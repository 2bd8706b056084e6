"""The table of a study, in Markdown."""
from collections.abc import Mapping, Sequence

from util.study.file import AVERAGE, Row, Study
from util.study.results import Results, order, published_pairs, rank_correlation


def report(study: Study, results: Results, facts: Mapping[str, str], missing: Sequence[str]) -> str:
    """All that there is to say.

    Args:
        facts: what was done here, under the names that the study's `paper` uses.
        missing: rows that were not measured yet.
    """
    plan, sets = study.test, len(study.test.datasets or study.test.videos)
    lines = [f"# {study.title}", "",
             f"BD-rate (%) against {study.rows[study.anchor].label}, {plan.metric} in RGB, {plan.color}, "
             f"{plan.frames} frames, GOP {plan.gop}: mean over {sets} {'video' if plan.videos else 'data set'}"
             f"{'s' if sets > 1 else ''} of the BD-rates of their mean curves (pchip).", "",
             "| row | published | measured | difference |", "|---|---:|---:|---:|"]
    lines += [_line(row, results, study.anchor) for row in study.rows.values() if row.name not in missing]
    if study.source:
        lines += ["", f"Published: {study.source}."]
    if missing:
        lines += ["", f"Not measured yet: {', '.join(missing)}."]
    lines += ["", *_verdict(study, results)]
    if sets > 1:
        lines += ["", "## By data set", "", *_by_dataset(study, results)]
    refusals = [f"- {study.rows[name].label}: {reason}" for name, result in results.rows.items()
                for reason in result.refusals]
    if refusals:
        lines += ["", "Refused:", "", *refusals]
    lines += ["", "## What was different", "", "| | paper | here |", "|---|---|---|"]
    lines += [f"| {fact} | {study.paper.get(fact, '')} | {facts.get(fact, '')} |"
              for fact in dict.fromkeys((*study.paper, *facts))]
    return "\n".join(lines) + "\n"


def number(value: float | None, sign: bool = False) -> str:
    """With two digits; empty for None."""
    return "" if value is None else f"{value:{'+' if sign else ''}.2f}"


def _line(row: Row, results: Results, anchor: str) -> str:
    paper, result = row.published.get(AVERAGE), results.rows.get(row.name)
    measured = None if result is None else result.average
    words = "" if result is None else "anchor" if row.name == anchor else number(measured, True) or "refused"
    difference = None if None in (paper, measured) or row.name == anchor else measured - paper
    return f"| {row.label} | {number(paper, True)} | {words} | {number(difference, True)} |"


def _verdict(study: Study, results: Results) -> list[str]:
    """Chance, rank correlation and order."""
    lines, pairs, yardstick = [], published_pairs(study, results), results.yardstick
    if results.chance:
        words = ", ".join(f"{number(value)} ({study.rows[study.rows[name].repeats].label})"
                          for name, value in results.chance.items())
        lines.append(f"Chance: another seed makes a difference of {words} percentage points. Differences up to "
                     f"{number(yardstick)} say nothing.")
    else:
        lines.append("Chance: no row was repeated with another seed, so nothing is known of what chance does.")
    rank = rank_correlation(pairs)
    lines.append(f"Rank correlation with the paper (Spearman): "
                 f"{'none, there are too few rows' if rank is None else f'{rank:.2f}'}, over {len(pairs)} rows that "
                 "have both figures.")
    if yardstick is not None and len(pairs) > 1:
        found = order(pairs, yardstick)
        lines.append(f"Of the {sum(found)} pairs of these rows that the paper tells apart, {found.same} are in its "
                     f"order and {found.other} in the other, beyond chance; {found.within_chance} are within chance.")
    return lines


def _by_dataset(study: Study, results: Results) -> list[str]:
    known = next(iter(results.rows.values())).rates
    lines = ["| row | " + " | ".join(known) + " |", "|---|" + "---:|" * len(known)]
    for name, result in results.rows.items():
        row = study.rows[name]
        cells = []
        for dataset in known:
            measured, paper = result.rates.get(dataset), row.published.get(dataset)
            words = number(measured, True) or "refused"
            cells.append(f"{words} ({paper:+.1f})" if paper is not None else words)
        lines.append(f"| {row.label} | " + " | ".join(cells) + " |")
    return [*lines, "", "In brackets: published."]

"""`python -m util.study studies/X.yml --results DIR -data ROOT`: the rows of a paper's table, beside its values.

docs/studies.md explains.
"""
import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from models.catalogue import build_codec, find_model
from util.cli.flags import Group, add_groups
from util.cli.groups import data_group, machine_group
from util.comparison.curves import datasets
from util.comparison.plots import plot_dataset
from util.evaluation.complexity import parameters
from util.files import atomic_path
from util.program import Parser, exit_status
from util.study.dry_run import Clock, describe
from util.study.file import RELEASED, Row, Study, read_study
from util.study.measure import evaluate, evaluated, folders, model_path
from util.study.plot import plot_rows
from util.study.report import report
from util.study.results import Results, results_of
from util.study.rows import Job, job_of, train
from util.training.distributed import team_of
from util.training.options import DEFAULT_DATASET, TrainingOptions, training_group

TRAINING = ("--train_dataset", "--train_data", "--valid_data", "--crop_size", "--pretrained", "--from_scratch",
            "--epoch_ratio", "--batch_size", "--accumulate", "--ema", "--keep", "--tf32", "--amp", "--channels_last",
            "--save_minutes", "--max_skipped", "--no_sanity", "--debug")
"""Flags of training that mean here what they mean there."""


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = Parser(prog="python -m util.study", description=__doc__)
    flags.add_argument("study", type=Path, help="the file of the study, e.g. studies/buffering_bt601.yml")
    flags.add_argument("--results", type=Path, required=True, metavar="DIR", help="holds everything that comes of it")
    flags.add_argument("--rows", nargs="+", metavar="NAME", help="only these rows; the table has all that are there")
    flags.add_argument("--dry_run", action="store_true", help="print steps, hours and disk of what is missing")
    flags.add_argument("--start", type=Path, dest="weights", metavar="FILE",
                       help="weights that rows start from, instead of those that the study names")
    flags.add_argument("--encoder", nargs=3, action="append", metavar=("NAME", "PROGRAM", "CONFIG"),
                       help="hm or vtm, its encoder program and configuration file (docs/anchors.md)")
    add_groups(flags, [_some(data_group(), ("--data",)), machine_group(), _some(training_group(), TRAINING)])
    return flags


def _some(group: Group, names: Sequence[str]) -> Group:
    return Group(group.title, group.tasks, group.remark, [flag for flag in group.flags if set(flag.names) & set(names)])


def options_of(flags: argparse.Namespace, study: Study) -> TrainingOptions:
    """What the training of all rows has in common. Without --valid_data there is no validation: the last epoch counts.

    Raises:
        InputError: a value outside its bounds.
    """
    words = argparse.Namespace(**{**vars(flags), "dry_run": False, "results": flags.results / "training"})
    return replace(TrainingOptions.from_namespace(words), ssim=study.test.metric == "MS-SSIM", test_dataset=(),
                   keep=1 if flags.keep is None else flags.keep)


def run(flags: argparse.Namespace) -> None:
    """Everything that the flags ask for.

    Raises:
        InputError: a file, flag or row that cannot be used.
        Ended: a signal stopped a training, after it was saved.
    """
    study = read_study(flags.study)
    options, rows = options_of(flags, study), study.chosen(flags.rows)
    jobs = {row.name: job_of(study, row, options) for row in study.rows.values() if row.measured}
    if flags.dry_run:
        dry_run(flags, rows, jobs)
        return
    with team_of(options.device, options.gpus) as team:
        for row in rows:
            if jobs[row.name] is not None:
                train(jobs[row.name], flags.results, team)
            evaluate(study, row, jobs[row.name], flags.results, flags, team)
        if team.leads:
            tell(flags, study, jobs)


def dry_run(flags: argparse.Namespace, rows: Sequence[Row], jobs: Mapping[str, Job | None]) -> None:
    """Print what is missing, what rows start from first."""
    device = torch.device("cuda" if flags.device != "cpu" and flags.gpus > 0 and torch.cuda.is_available() else "cpu")
    if flags.threads is not None:
        torch.set_num_threads(flags.threads)
    needed: dict[str, Job] = {}
    for job in (jobs[row.name] for row in rows):
        chain = []
        while job is not None:
            chain.append(job)
            job = job.before
        needed |= {job.name: job for job in reversed(chain) if job.name not in needed}
    costs = list(Clock(device).costs(list(needed.values())))
    print(describe(list(needed), costs, device))
    others = [row.name for row in rows if jobs[row.name] is None]
    if others:
        print(f"nothing to train: {', '.join(others)}")


def tell(flags: argparse.Namespace, study: Study, jobs: Mapping[str, Job | None]) -> None:
    """Table and plots of all rows that were evaluated, by whatever run."""
    there = {name: folders(study, study.rows[name], flags.results) for name, job in jobs.items()
             if evaluated(study, study.rows[name], job, flags.results)}
    missing = [name for name in jobs if name not in there]
    if study.anchor not in there:
        print(f"no table yet: the anchor, {study.anchor}, was not measured")
        return
    results = results_of(study, there)
    text = report(study, results, facts(flags, study, jobs, results), missing)
    with atomic_path(flags.results / f"{study.name}.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)
    plot_rows(flags.results / f"{study.name}.png", study, results)
    for dataset, sequences in datasets(results.codecs).items():
        plot_dataset(flags.results / study.name / f"{dataset}.png".replace(" ", "_").replace("/", "_"), dataset,
                     results.codecs, sequences)


def facts(flags: argparse.Namespace, study: Study, jobs: Mapping[str, Job | None], results: Results) -> dict[str, str]:
    """What was done here, as far as it can be told; the study's own words come last."""
    trained = [jobs[name] for name in results.rows if jobs[name] is not None]
    found = {}
    if trained:
        updates = {job.updates() for job in trained}
        found["training data"] = flags.train_dataset or ", ".join(dict.fromkeys(
            step.train_dataset or DEFAULT_DATASET for job in trained for step in job.steps))
        found["updates of a row"] = _span([f"{count:,}" for count in sorted(updates)])
    sizes = sorted({_parameters(study.rows[name], flags) for name in results.rows if study.rows[name].model})
    if sizes:
        found["parameters"] = _span([f"{size / 1e6:.1f} M" for size in sizes])
    found["test sequences"] = ", ".join(f"{dataset} ({len(names)})"
                                        for dataset, names in datasets(results.codecs).items())
    return {**found, **study.here}


def _span(words: Sequence[str]) -> str:
    return words[0] if len(set(words)) == 1 else f"{words[0]} to {words[-1]}"


def _parameters(row: Row, flags: argparse.Namespace) -> int:
    path = model_path(row, flags.results)
    with torch.device("meta"):
        codec = build_codec(find_model(row.model if row.weights == RELEASED and not row.changes else path))
    return sum(parameters(codec).values())


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0, 2 for bad input, or 128 + n for signal n."""
    return exit_status("study", lambda: run(parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())

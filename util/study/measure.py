"""Evaluation of rows, by the programs that evaluate anything: reports below `DIR/{study}/{row}`."""
import hashlib
import json
import shutil
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

from util.anchors.__main__ import run as run_anchor
from util.anchors.measure import folder_of
from util.cli.arguments import parse_arguments
from util.cli.test import run_test
from util.errors import InputError
from util.files import atomic_path
from util.study.file import RELEASED, Row, Study, TestPlan
from util.study.rows import Job, write_model
from util.training.distributed import Team


def folders(study: Study, row: Row, results: Path) -> list[Path]:
    """Where the reports of a row are, a folder per rate."""
    place = results / study.name / row.name
    if row.encoder is not None:
        return [folder_of(place, row.encoder, study.test.metric, qp) for qp in row.QP]
    return [place / str(qp) for qp in study.test.QP]


def evaluated(study: Study, row: Row, job: Job | None, results: Path) -> bool:
    """Whether the reports that are there are of the present weights and plan."""
    marker = results / study.name / row.name / "done.json"
    try:
        return marker.read_text(encoding="utf-8") == _mark(study, row, job)
    except (OSError, InputError):
        return False


def evaluate(study: Study, row: Row, job: Job | None, results: Path, flags: Namespace, team: Team) -> None:
    """Evaluate a row unless it is, with all processes.

    Raises:
        InputError: frames or weights are missing, or an encoder's program.
    """
    if team.led(lambda: evaluated(study, row, job, results)):
        return
    if team.leads:
        shutil.rmtree(results / study.name / row.name, ignore_errors=True)
        if row.encoder is None:
            write_model(row, job, model_path(row, results))
    team.wait()
    if row.encoder is None:
        for source in _sources(study.test, flags):
            run_test(parse_arguments(_flags_of_model(study, row, job, results, flags) + source))
    elif team.leads:
        for source in _sources(study.test, flags):
            run_anchor(_flags_of_encoder(study, row, results, flags) + source)
    if team.leads:
        with atomic_path(results / study.name / row.name / "done.json") as temporary:
            temporary.write_text(_mark(study, row, job), encoding="utf-8")


def model_path(row: Row, results: Path) -> Path:
    """The file of the row's model."""
    return results / "rows" / f"{row.name}.yml"


def weights_of(row: Row, job: Job | None) -> Path | None:
    """The row's weight file; None for encoders, and where the model has its own."""
    if row.encoder is not None or row.weights == RELEASED:
        return None
    return job.result if job is not None else Path(row.weights)


def _mark(study: Study, row: Row, job: Job | None) -> str:
    """What an evaluation depends on.

    Raises:
        InputError: there are no weights yet.
    """
    weights = weights_of(row, job)
    try:
        digest = weights and hashlib.sha256(weights.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{weights}: cannot be read ({error.strerror}); train row {row.name} first") from None
    return json.dumps({"weights": digest or row.weights or row.encoder, "test": asdict(study.test), "QP": row.QP})


def _sources(plan: TestPlan, flags: Namespace) -> list[list[str]]:
    """Flags for what is coded in one go: all data sets, or one video."""
    if plan.videos:
        return [["--input", str(flags.data / video)] for video in plan.videos]
    words = ["--test_dataset", *plan.datasets, "-data", str(flags.data)]
    return [words + ["--test_seqs", *plan.sequences] if plan.sequences else words]


def _plan_flags(plan: TestPlan) -> list[str]:
    return ["--test_seq_len", str(plan.frames), "--gop", str(plan.gop), "--color_transform", plan.color,
            *["--test_crop"] * plan.crop]


def _flags_of_model(study: Study, row: Row, job: Job | None, results: Path, flags: Namespace) -> list[str]:
    released = row.weights == RELEASED and not row.changes
    weights = weights_of(row, job)
    words = ["--test", "--model", row.model if released else str(model_path(row, results)),
             "--QP", *map(str, study.test.QP), "--save_dir", str(results / study.name / row.name),
             "--device", flags.device, "--gpus", str(flags.gpus), *_plan_flags(study.test)]
    if study.test.videos:
        words += ["--frames", str(study.test.frames)]
    if weights is not None:
        words += ["--weights", str(weights)]
    if flags.threads is not None:
        words += ["--threads", str(flags.threads)]
    return words + ["--ssim"] * (study.test.metric == "MS-SSIM")


def _flags_of_encoder(study: Study, row: Row, results: Path, flags: Namespace) -> list[str]:
    words = [row.encoder, "--QP", *map(str, row.QP), "--metrics", study.test.metric,
             "--save_dir", str(results / study.name / row.name), *_plan_flags(study.test)]
    for name, program, config in flags.encoder or ():
        if name == row.encoder:
            words += ["--encoder", program, "--config", config]
    return words

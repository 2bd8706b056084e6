"""Studies: files, what is trained and in which order, the table, and one from end to end."""
import csv
import math
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
import torch
import yaml
from bjontegaard import bd_rate
from forked import team_of_two

from conftest import write_frames
from helpers import ROOT, TINY
from models.catalogue import codec_class, configure, find_model
from seeded import seeded_video
from util.comparison.published import lookup
from util.errors import InputError
from util.study.__main__ import main
from util.study.file import AVERAGE, Row, read_study
from util.study.results import order, rank_correlation
from util.study.rows import job_of, plain
from util.training.checkpoints import Checkpoints
from util.training.main import new_codec
from util.training.network import TrainedNetwork
from util.training.options import TrainingOptions
from util.training.phases import read_phases
from util.training.trainer import Trainer

STUDIES = sorted((ROOT / "studies").glob("*.yml"))
QPS = (0, 21, 42, 63)
EXPLICIT = {"motion": {"buffer": {"feature": None, "latent": False}, "add_fg": False},
            "inter": {"buffer": {"feature": None, "latent": False}}}


def tiny_study(folder: Path, **changes) -> Path:
    """Explicit and hybrid buffering at the widths of the tests, from computed weights, two optimizer steps each."""
    phases = {"defaults": {"lr": 1e-5, "batch_size": 1, "stage": "fullgop", "max_num_Pframe": 1, "crop_size": 64,
                           "loss_on": {"R": "rate", "D": "distortion"}, "steps_per_epoch": 2},
              "phases": {"only": {"end_epoch": 1}}}
    recipe = {"row": {"train_conf": "phases.yml", "restore": "scratch", "train_dataset": "folder"}}
    study = {"title": "A tiny study", "anchor": "explicit", "test": {"videos": ["video"], "frames": 2, "gop": 2},
             "defaults": {"model": str(TINY / "hytip.yml"), "recipe": "recipe.yml"},
             "rows": {"explicit": {"changes": EXPLICIT, "published": 0}, "hybrid": {"published": -21.5},
                      "again": {"repeats": "hybrid", "seed": 1}, "other": {"label": "Another", "published": 3.0,
                                                                           "encoder": "x264", "QP": [22, 27, 32, 37]}},
             "paper": {"training data": "Vimeo-90k", "width": "full"}, "here": {"width": "tiny"}, **changes}
    for name, content in (("phases", phases), ("recipe", recipe), ("study", study)):
        (folder / f"{name}.yml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder / "study.yml"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The study from end to end, stopped by a signal in the first row and started again: (folder, status of both)."""
    folder = tmp_path_factory.mktemp("study")
    path = tiny_study(folder)
    write_frames(folder / "data" / "video", seeded_video(2, 64, 64, 4))
    write_frames(folder / "data" / "clips" / "a", seeded_video(3, 64, 64, 5))
    words = [str(path), "--results", str(folder / "results"), "-data", str(folder / "data"), "--train_data",
             str(folder / "data" / "clips"), "--device", "cpu", "--threads", "1",
             "--rows", "explicit", "hybrid", "again"]
    update, seen = Trainer.update, []

    def interrupted(trainer: Trainer, *arguments) -> None:
        seen.append(trainer.progress.updates)
        if len(seen) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        update(trainer, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "update", interrupted)
        statuses = main(words), main(words)
    return folder, words, statuses, seen


def test_a_study_goes_on_where_it_was_stopped(finished):
    folder, _, statuses, seen = finished
    assert statuses == (128 + signal.SIGTERM, 0)
    assert seen == [0, 1, 0, 1, 0, 1], "two optimizer steps of each row, none of them twice"
    for row in ("explicit", "hybrid", "again"):
        assert Checkpoints(folder / "results" / "training", f"{row}_row").of_epoch(1).is_file()


def curve_of(folder: Path) -> tuple[list[float], list[float]]:
    """Rate and quality of each QP, from the reports of one video of one GOP."""
    points = []
    for qp in QPS:
        report, = (folder / str(qp) / "report").glob("*.csv")
        with report.open(newline="") as file:
            rows = list(csv.DictReader(file))
        points.append((fmean(float(row["Rate"]) for row in rows), fmean(float(row["PSNR"]) for row in rows)))
    return tuple(map(list, zip(*points)))


def test_its_table_is_that_of_the_reports(finished):
    folder = finished[0]
    table = (folder / "results" / "study.md").read_text()
    curves = {row: curve_of(folder / "results" / "study" / row) for row in ("explicit", "hybrid", "again")}
    own, again = (bd_rate(*curves["explicit"], *curves[row], method="pchip", require_matching_points=False,
                          min_overlap=0) for row in ("hybrid", "again"))
    assert abs(own) > 0.005 and abs(own - again) > 0.005, "otherwise the table shows nothing"
    assert "| explicit | +0.00 | anchor |  |" in table
    assert f"| hybrid | -21.50 | {own:+.2f} | {own + 21.5:+.2f} |" in table
    assert f"| hybrid, other seed |  | {again:+.2f} |  |" in table
    assert f"another seed makes a difference of {abs(own - again):.2f} (hybrid) percentage points" in table
    assert "(Spearman): none, there are too few rows, over 2 rows" in table
    assert "Not measured yet: other." in table
    assert "| training data | Vimeo-90k | folder |" in table and "| width | full | tiny |" in table
    assert "| updates of a row |  | 2 |" in table
    assert (folder / "results" / "study.png").stat().st_size > 5000
    assert (folder / "results" / "study" / "video.png").is_file()


def test_what_is_done_is_not_done_again(finished, capsys, monkeypatch):
    folder, words, *_ = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "results").rglob("*.csv")}
    monkeypatch.setattr(Trainer, "update", None)
    assert main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in (folder / "results").rglob("*.csv")} == before
    assert main([*words, "--dry_run"]) == 0
    assert re.search(r"^hybrid +trained$", capsys.readouterr().out, re.MULTILINE)


def test_processes_know_each_other_from_row_to_row(finished, tmp_path):
    """Two evaluate a row again: who joined anew for each step would call where nobody listens any more."""
    folder, words, *_ = finished
    before = (folder / "results" / "study.md").read_text()
    (folder / "results" / "study" / "hybrid" / "done.json").unlink()
    statuses, said = team_of_two(main, words, folder=tmp_path)
    assert statuses == [0, 0], said
    assert (folder / "results" / "study" / "hybrid" / "done.json").is_file()
    assert (folder / "results" / "study.md").read_text() == before


def test_another_row_of_the_same_name_is_refused(finished, capsys):
    folder, words, *_ = finished
    text = Path(words[0]).read_text()
    try:
        Path(words[0]).write_text(text.replace("add_fg: false", "add_fg: true"))
        assert main(words) == 2
    finally:
        Path(words[0]).write_text(text)
    assert "row explicit was trained with another model; choose another --results" in capsys.readouterr().err


def test_the_row_of_a_study_is_a_model(finished):
    """Every value is spelled out in its file."""
    model = find_model(finished[0] / "results" / "rows" / "explicit.yml")
    assert configure(model) == configure(find_model(TINY / "hytip.yml"), changes=EXPLICIT)
    assert "file" not in str(model.model_params)


def test_encoders_are_rows(finished, capsys):
    folder, words, *_ = finished
    assert main([*words[:words.index("--rows")], "--rows", "other"]) == 0
    table = (folder / "results" / "study.md").read_text()
    assert re.search(r"^\| Another \| \+3.00 \| ([+-][\d.]+|refused) \|", table, re.MULTILINE)
    assert "Not measured yet" not in table


def test_dry_run(tmp_path, capsys):
    """Steps are counted, hours follow from a timed step, and nothing is written."""
    path = tiny_study(tmp_path)
    assert main([str(path), "--results", str(tmp_path / "results"), "--dry_run", "--device", "cpu"]) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert {name: cells[0] for name, cells in rows.items() if name in ("explicit", "hybrid", "again", "all")} == \
        {"explicit": "2", "hybrid": "2", "again": "2", "all": "6"}
    assert rows["nothing"] == ["to", "train:", "other"]
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_shipped_studies(path):
    """Files can be read, every row can be configured in all its steps, and what is trained alike is alike."""
    study = read_study(path)
    options = TrainingOptions(results=Path("none"))
    for row in study.rows.values():
        job = job_of(study, row, options) if row.measured else None
        for _, own in job.options_of_steps() if job is not None else ():
            configure(find_model(own.model), changes=own.changes)
            read_phases(own.train_conf)
        if row.measured and row.encoder is None:
            configure(find_model(row.model), changes=row.changes)
    assert study.rows[study.anchor].published.get(AVERAGE, 0.0) == 0.0


BUFFERING = ("buffering_bt601", "buffering_bt709", "buffering_frames")


@pytest.mark.parametrize("name, rows", [
    ("buffering_bt601", ("explicit_2+0__explicit_3+0", "hybrid_2+0.125__implicit_0+5")),
    ("buffering_small", None), ("small_ablations", None)])
def test_phases_of_rows_fit_their_models(name, rows):
    """What phases freeze and train is there, in every row that has other modules."""
    study = read_study(ROOT / "studies" / f"{name}.yml")
    for row in study.chosen(list(rows) if rows else None):
        if row.repeats is None:
            job = job_of(study, row, TrainingOptions(results=Path("none")))
            for _, own in (*job.options_of_steps(), *(job.before.options_of_steps() if job.before else ())):
                with torch.device("meta"):
                    network = TrainedNetwork(new_codec(own))
                for phase in read_phases(own.train_conf):
                    assert network.select(phase)


def test_the_buffering_studies_have_the_rows_of_the_tables():
    shipped = {path.stem for path in (ROOT / "config" / "hytip" / "buffering").glob("*.yml")}
    for name in BUFFERING[:2]:
        rows = read_study(ROOT / "studies" / f"{name}.yml").rows
        assert {row.name for row in rows.values() if row.repeats is None} == shipped
    small = read_study(ROOT / "studies" / "buffering_small.yml")
    for row in (row for row in small.rows.values() if row.repeats is None):
        own = configure(find_model(row.model), changes=row.changes)
        full = configure(find_model(ROOT / "config" / "hytip" / "buffering" / f"{row.name}.yml"))
        assert (own.motion.buffer, own.inter.buffer) == (full.motion.buffer, full.inter.buffer)
    assert len(small.rows) == 7 + 2


def test_rows_of_the_ablations_differ_in_one_thing():
    study = read_study(ROOT / "studies" / "small_ablations.yml")
    own = {name: configure(find_model(row.model), changes=row.changes) for name, row in study.rows.items()}
    full = own["full"]
    assert own["full_again"] == full and study.rows["full_again"].seed == 1
    assert replace(own["no_mask"], inter=replace(own["no_mask"].inter, framework=full.inter.framework)) == full
    assert replace(own["no_motion"], motion=replace(own["no_motion"].motion, no_motion=False)) == full
    explicit = own["no_buffers"]
    assert (explicit.motion.buffer.feature, explicit.inter.buffer.feature) == (None, None)
    assert replace(explicit, motion=full.motion, inter=replace(explicit.inter, buffer=full.inter.buffer)) == full


def test_epochs_of_rows_are_equal():
    """Those of phases that a row cannot have go to others."""
    study = read_study(ROOT / "studies" / "buffering_bt601.yml")
    lengths = {sum(read_phases(step.train_conf)[-1].last_epoch for step in job_of(study, row, TrainingOptions()).steps)
               for row in study.rows.values()}
    assert len(lengths) == 1


def test_published_values_by_name():
    row = read_study(ROOT / "studies" / "hytip_psnr.yml").rows["hytip"]
    assert row.published == lookup("PSNR", "BT709", "HyTIP") and row.published["UVG"] == -22.3


def rows_of(*pairs: tuple[float, float]) -> list[tuple[Row, float, float]]:
    return [(Row(name=str(n)), *pair) for n, pair in enumerate(pairs)]


def test_rank_correlation_and_order():
    pairs = rows_of((0, 0), (-10, -3), (-15, -4), (-20, 2))
    # Spearman by hand: ranks 4 3 2 1 beside 3 2 1 4, squared differences 1 1 1 9.
    assert math.isclose(rank_correlation(pairs), 1 - 6 * 12 / (4 * 15))
    assert order(pairs, 0.0) == (3, 3, 0)
    assert order(pairs, 1.5) == (2, 3, 1)
    assert rank_correlation(pairs[:2]) is None


@pytest.mark.parametrize("changes, message", [
    ({"anchor": "none"}, "anchor 'none' must be a row that can be measured"),
    ({"test": {"datasets": ["UVG"], "QP": [0, 63]}}, "test.QP (0, 63) must be at least 4 different rates"),
    ({"test": {"datasets": ["UVW"]}}, "--test_dataset UVW is unknown"),
    ({"test": {"frames": 3}}, "test must have datasets, or videos below the data"),
    ({"test": {"datasets": ["UVG"], "color": "BT2020"}}, "test.color 'BT2020' must be one of BT601, BT709"),
    ({"extra": 1}, "unknown key 'extra' in the study"),
    ({"rows": {"a b": {}}}, "row 'a b': a name may hold letters"),
    ({"rows": {"explicit": {"weight": 1}}}, "unknown key 'weight' in row explicit"),
    ({"rows": {"explicit": {"weights": "released", "recipe": "x.yml"}}}, "has weights and a recipe"),
    ({"rows": {"explicit": {}, "x": {"repeats": "y"}}}, "row x repeats 'y': that must be a row above"),
    ({"rows": {"explicit": {}, "x": {"repeats": "explicit"}}}, "row x repeats explicit with its seed, 0"),
    ({"rows": {"explicit": {"published": "HyTIP 2"}}}, "published 'HyTIP 2' is no method of published.tsv"),
    ({"rows": {"explicit": {"start": {"row": "b"}}}}, "starts from row 'b', which is not there"),
    ({"rows": {"explicit": {"encoder": "av2", "QP": [1, 2, 3, 4]}}}, "encoder 'av2' is unknown"),
    ({"rows": {"explicit": {"restore": "magic"}}}, "restore 'magic' is unknown")])
def test_bad_studies_are_refused_in_one_line(tmp_path, changes, message, capsys):
    path = tiny_study(tmp_path, **changes)
    assert main([str(path), "--results", str(tmp_path / "results"), "--dry_run"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and str(path) in error
    assert not (tmp_path / "results").exists()


def test_rows_that_start_from_each_other(tmp_path):
    path = tiny_study(tmp_path, rows={"explicit": {"start": {"row": "b"}}, "b": {"start": {"row": "explicit"}}})
    study = read_study(path)
    with pytest.raises(InputError, match="rows start from each other: explicit, b, explicit"):
        job_of(study, study.rows["explicit"], TrainingOptions())


def test_starting_points(tmp_path):
    """A file, another row, a model that is trained first; --start stands for the first and the last."""
    common = {"model": str(TINY / "hytip.yml"), "recipe": "recipe.yml", "changes": EXPLICIT}
    path = tiny_study(tmp_path, start=common, rows={
        "explicit": {"restore": "buffering"}, "b": {"start": {"row": "explicit"}, "restore": "neighbour"},
        "c": {"start": {"weights": "w.pth.tar"}}})
    study = read_study(path)
    first, second, third = (job_of(study, study.rows[name], TrainingOptions()) for name in ("explicit", "b", "c"))
    assert (first.before.name, first.before.options.changes) == ("start", EXPLICIT)
    assert (first.options.restore_exp_key, first.steps[0].restore) == ("start_row", "buffering")
    assert (second.before.name, second.options.restore_exp_key) == ("explicit", "explicit_row")
    assert (third.before, third.options.weights, third.options.restore_exp_key) == (None, tmp_path / "w.pth.tar", None)
    given = job_of(study, study.rows["explicit"], TrainingOptions(weights=Path("x")))
    assert (given.before, given.options.weights) == (None, Path("x"))


def test_plain_configurations_read_back(tmp_path):
    for name in ("hytip", "dcvc-mip"):
        model = find_model(TINY / f"{name}.yml")
        config = configure(model)
        (tmp_path / "m.yml").write_text(yaml.safe_dump({"codec": model.codec, "model_params": plain(config)}))
        assert configure(find_model(tmp_path / "m.yml")) == config
        assert codec_class(model).config_type is type(config)

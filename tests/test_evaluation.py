"""Evaluation through the command line, at tiny width: what a user sees and gets."""
import csv
import json
import math

import pytest
import torch

from conftest import write_frames
from helpers import TINY_FLAGS, seeded_model, tiny_config
from seeded import seeded_video
from util.checkpoint import save_model
from util.evaluation.metrics import ms_ssim, psnr
from util.evaluation.report import Averages, FrameResult, PFrameParts, average, average_gop


@pytest.fixture
def root(tmp_path):
    """HEVC-D sequences of sizes that are no multiple of 16, and one with a scene cut."""
    data = tmp_path / "data"
    write_frames(data / "HEVC-D" / "BQSquare", seeded_video(7, 50, 83, 1))
    write_frames(data / "HEVC-D" / "RaceHorses1", seeded_video(5, 33, 70, 2))
    write_frames(data / "HEVC-D" / "RaceHorses1_BT709", seeded_video(5, 33, 70, 3))
    write_frames(data / "HEVC-RGB" / "ParkScene_10b_rgb", seeded_video(3, 40, 40, 4))
    write_frames(data / "MCL-JCV" / "videoSRC25", seeded_video(20, 40, 40, 5))
    return data


def test_command(root, tmp_path, *flags):
    return ("--test", "--untrained", *TINY_FLAGS, "-data", root, "--save_dir", tmp_path / "out", "--device", "cpu",
            "--threads", 1, *flags)


test_command.__test__ = False


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run(hytip, root, tmp_path, *flags):
    status, out, err = hytip(*test_command(root, tmp_path, *flags))
    assert status == 0, err
    assert "untrained" in err and err.count("\n") == 1 + err.count("warning")
    return tmp_path / "out"


def test_full_sequence_with_a_short_last_gop(hytip, root, tmp_path):
    out = run(hytip, root, tmp_path, "--test_dataset", "HEVC-D", "--test_seqs", "BQSquare", "--full_seq", "--gop", 3)
    report = rows(out / "report" / "BQSquare_FullSeq.csv")
    assert [row["frame"] for row in report] == [f"frame_{n}" for n in range(1, 8)]
    assert [row["my"] == "0" for row in report] == [n % 3 == 0 for n in range(7)]
    summary = (out / "brief_summary_HEVC-D_FullSeq.txt").read_text().splitlines()
    figures = [float(word) for word in summary[1].split()[1:]]
    quality, rate = ([float(row[key]) for row in report] for key in ("PSNR", "Rate"))
    gops = [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert figures[0] == pytest.approx(sum(sum(quality[g]) / len(quality[g]) for g in gops) / 3, abs=1e-4)
    assert figures[1] == pytest.approx(sum(sum(rate[g]) / len(rate[g]) for g in gops) / 3, abs=1e-4)
    motion = [float(row["my"]) + float(row["mz"]) for row in report]
    assert figures[2] == pytest.approx((sum(motion[1:3]) / 2 + sum(motion[4:6]) / 2) / 2, abs=1e-4)


def test_test_seq_len_also_ends_in_a_short_gop(hytip, root, tmp_path):
    out = run(hytip, root, tmp_path, "--test_dataset", "HEVC-D", "--test_seqs", "BQSquare", "--test_seq_len", 5,
              "--gop", 4)
    assert [row["my"] == "0" for row in rows(out / "report" / "BQSquare.csv")] == [True, False, False, False, True]


def test_color_chooses_folder_and_names(hytip, root, tmp_path):
    flags = ("--test_seq_len", 3, "--test_dataset", "HEVC-D", "HEVC-RGB", "--test_seqs", "RaceHorses1",
             "ParkScene_10b_rgb")
    out = run(hytip, root, tmp_path, *flags, "--color_transform", "BT709")
    assert {p.name for p in (out / "report").iterdir()} == {"RaceHorses1_BT709.csv", "ParkScene_10b_rgb.csv"}
    assert {p.name for p in out.iterdir()} == {"report", "brief_summary_HEVC-D&HEVC-RGB_BT709.txt",
                                               "brief_summary_HEVC-D&HEVC-RGB_BT709.json"}
    bt709 = rows(out / "report" / "RaceHorses1_BT709.csv")
    run(hytip, root, tmp_path, *flags)
    assert rows(out / "report" / "RaceHorses1.csv") != bt709


def test_two_runs_are_identical(hytip, root, tmp_path):
    flags = ("--test_dataset", "HEVC-D", "--test_seqs", "BQSquare", "RaceHorses1", "--test_seq_len", 4)
    first, second = (run(hytip, root, tmp_path / name, *flags) for name in ("a", "b"))
    for path in first.rglob("*"):
        if path.suffix in (".csv", ".txt"):
            assert path.read_bytes() == (second / path.relative_to(first)).read_bytes()


def test_several_rates_in_one_run_equal_single_runs(hytip, root, tmp_path):
    flags = ("--test_dataset", "HEVC-D", "--test_seqs", "BQSquare", "--test_seq_len", 4)
    together = run(hytip, root, tmp_path / "all", *flags, "--QP", 0, 63, "--iframe_quality", 5, 40)
    for qp, intra in ((0, 5), (63, 40)):
        alone = run(hytip, root, tmp_path / str(qp), *flags, "--QP", qp, "--iframe_quality", intra)
        for name in ("report/BQSquare.csv", "brief_summary_HEVC-D.txt"):
            assert (together / str(qp) / name).read_bytes() == (alone / name).read_bytes()
        record = json.loads((together / str(qp) / "brief_summary_HEVC-D.json").read_text())
        assert f"QP {qp}, intra {intra}" in record["conventions"]["gop"]


def test_default_folder_is_named_after_experiment_and_rate(hytip, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = hytip("--test", "--untrained", *TINY_FLAGS, "-data", root, "--test_dataset", "HEVC-D",
                           "--test_seqs", "RaceHorses1", "--test_seq_len", 2, "--QP", 7, "--experiment_name", "mine",
                           "--device", "cpu")
    assert status == 0, err
    assert (tmp_path / "results" / "mine-7" / "report" / "RaceHorses1.csv").is_file()


def test_scene_cuts_are_treated_only_when_asked(hytip, root, tmp_path):
    flags = ("--test_dataset", "MCL-JCV", "--test_seqs", "videoSRC25", "--test_seq_len", 20)
    for flag, cuts in (((), {0}), (("--remove_scene_cut",), {0, 17})):
        out = run(hytip, root, tmp_path, *flags, *flag)
        assert {n for n, row in enumerate(rows(out / "report" / "videoSRC25.csv")) if row["my"] == "0"} == cuts


def test_crop_takes_the_centre(hytip, root, tmp_path):
    """Cropped by flag equals cropped by hand, with torchvision's rounding of odd margins."""
    flags = ("--test_dataset", "HEVC-D", "--test_seqs", "BQSquare", "--test_seq_len", 3)
    cropped = run(hytip, root, tmp_path / "a", *flags, "--test_crop", "--crop_factor", 32)
    video = seeded_video(7, 50, 83, 1)
    top, left = round((50 - 32) / 2), round((83 - 64) / 2)
    write_frames(tmp_path / "hand" / "HEVC-D" / "BQSquare", video[:, :, top:top + 32, left:left + 64])
    by_hand = run(hytip, tmp_path / "hand", tmp_path / "b", *flags)
    name = "report/BQSquare.csv"
    assert (cropped / name).read_bytes() == (by_hand / name).read_bytes()


def test_align_factor_changes_rates_not_the_measured_area(hytip, root, tmp_path):
    flags = ("--test_dataset", "HEVC-D", "--test_seqs", "RaceHorses1", "--test_seq_len", 3)
    reports = [rows(run(hytip, root, tmp_path / str(a), *flags, "--align_factor", a) / "report" / "RaceHorses1.csv")
               for a in (16, 64)]
    assert reports[0] != reports[1]
    assert float(reports[0][1]["PSNR"]) == pytest.approx(float(reports[1][1]["PSNR"]), abs=3)


def test_frame_type_map_reset_and_rate_group_reach_the_codec(hytip, root, tmp_path):
    flags = ("--test_dataset", "HEVC-D", "--test_seqs", "BQSquare", "--test_seq_len", 5)
    base = rows(run(hytip, root, tmp_path, *flags) / "report" / "BQSquare.csv")
    for change in (("--index_map", 0, 0, 0, 0, "--rate_gop_size", 4), ("--reset_interval", 2)):
        changed = rows(run(hytip, root, tmp_path, *flags, *change) / "report" / "BQSquare.csv")
        assert changed[:2] == base[:2] and changed[4] != base[4]


def test_an_experiment_can_be_evaluated(hytip, root, tmp_path):
    folder = tmp_path / "results" / "mine" / "checkpoints"
    for epoch in (2, 10):
        save_model(seeded_model(tiny_config(), salt=epoch), folder / f"epoch={epoch}.pth.tar")
    base = ("--test", *TINY_FLAGS, "-data", root, "--test_dataset", "HEVC-D", "--test_seqs", "BQSquare",
            "--test_seq_len", 2, "--device", "cpu", "--save_dir", tmp_path / "out")
    reports = {}
    for name, flags in (("newest", ()), ("second", ("--restore_exp_epoch", 2)), ("tenth", ("--restore_exp_epoch", 10))):
        status, _, err = hytip(*base, "--results", tmp_path / "results", "--restore_exp_key", "mine", *flags)
        assert (status, err) == (0, "")
        reports[name] = (tmp_path / "out" / "report" / "BQSquare.csv").read_bytes()
    assert reports["newest"] == reports["tenth"] != reports["second"]
    status, _, err = hytip(*base, "--results", tmp_path / "results", "--restore_exp_key", "mine",
                           "--restore_exp_epoch", 3)
    assert status == 2 and "no checkpoint of epoch 3" in err


def test_record_says_what_was_run(hytip, root, tmp_path):
    out = run(hytip, root, tmp_path, "--test_dataset", "HEVC-D", "--test_seqs", "BQSquare", "--test_seq_len", 2)
    record = json.loads((out / "brief_summary_HEVC-D.json").read_text())
    assert {"date", "commit", "weights", "versions", "arithmetic", "command", "flags", "sequences",
            "conventions"} == set(record)
    assert record["flags"]["test_seq_len"] == 2 and record["versions"]["torch"]
    assert record["arithmetic"] == {"device": "cpu", "device_name": "cpu", "dtype": "float32", "threads": 1,
                                    "tf32": False, "autotuning": False, "deterministic_algorithms": True}
    assert record["sequences"] == [{"name": "BQSquare", "dataset": "HEVC-D", "frames": 2, "width": 83, "height": 50,
                                    "color": "BT601", "range": "limited", "assumed": False, "rate": "60"}]
    assert {"color", "size", "bits", "quality", "gop", "frames", "scene_cuts", "bd_rate"} == set(record["conventions"])


def test_msssim(hytip, tmp_path):
    write_frames(tmp_path / "data" / "HEVC-D" / "BQSquare", seeded_video(2, 161, 170, 1))
    out = run(hytip, tmp_path / "data", tmp_path, "--ssim", "--test_dataset", "HEVC-D", "--test_seqs", "BQSquare",
              "--test_seq_len", 2)
    report = rows(out / "report" / "BQSquare.csv")
    assert list(report[0])[:5] == ["frame", "MS-SSIM", "Rate", "MC-MS-SSIM", "Warped-MS-SSIM"]
    assert 0 < float(report[1]["MS-SSIM"]) < 1


def test_memory_does_not_grow_with_the_sequence(hytip, tmp_path, monkeypatch):
    """Frames are read when they are needed, and given up."""
    import weakref

    from dataloader.source import PngFolder
    write_frames(tmp_path / "data" / "HEVC-D" / "BQSquare", seeded_video(12, 32, 32, 1))
    alive, most, read = set(), 0, PngFolder._read

    def counting(self, n):
        nonlocal most
        frame = read(self, n)
        alive.add(n)
        weakref.finalize(frame, alive.discard, n)
        most = max(most, len(alive))
        return frame

    monkeypatch.setattr(PngFolder, "_read", counting)
    run(hytip, tmp_path / "data", tmp_path, "--test_dataset", "HEVC-D", "--test_seqs", "BQSquare", "--full_seq")
    assert most <= 2


def test_psnr_and_ms_ssim_of_known_cases():
    a = torch.full((1, 3, 8, 8), 0.5)
    assert psnr(a + 0.1, a) == pytest.approx(20, abs=1e-4)
    assert psnr(a, a) == math.inf
    x = torch.rand(1, 3, 176, 176)
    assert ms_ssim(x, x) == pytest.approx(1)


def test_averages():
    rows = [FrameResult(1, 40.0, 1.0), FrameResult(2, 30.0, 0.5, PFrameParts(20.0, 10.0, 0.1, 0.1, 0.2, 0.1)),
            FrameResult(3, 20.0, 0.25, PFrameParts(10.0, 30.0, 0.05, 0.05, 0.1, 0.05))]
    gop = average_gop(rows)
    assert gop == pytest.approx(Averages(30.0, 1.75 / 3, 0.15, 15.0, 20.0, 0.4, 0.6)[:7] + (None,), nan_ok=True)
    intra = average_gop(rows[:1])
    assert intra.quality == 40 and math.isnan(intra.mc)
    both = average([gop, intra])
    assert both.quality == 35 and both.mc == 15                    # a GOP without P-frames has no say there


def test_complexity_on_the_command_line(hytip):
    status, out, err = hytip("--compute_macs", *TINY_FLAGS, "--device", "cpu")
    assert (status, err) == (0, "") and "encoding one conditional P-frame at 384x192" in out
    status, out, _ = hytip("--compute_macs", "--compute_decode_macs", *TINY_FLAGS, "--device", "cpu")
    assert status == 0 and "decoding" in out and "motion_estimation" not in out
    status, out, _ = hytip("--compute_model_size", *TINY_FLAGS, "--device", "cpu")
    assert status == 0 and "full-resolution channels" in out

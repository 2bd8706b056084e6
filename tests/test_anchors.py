"""util/anchors: x264 and x265 on the bundled clip, and HM and VTM with programs that stand in for them."""
import csv
import stat
import sys
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from dataloader.open import FirstFrames, VideoOptions, open_sink
from dataloader.prepare import main as prepare
from dataloader.source import PngFolder
from util.anchors.__main__ import main
from util.anchors.libraries import LibraryEncoder
from util.anchors.measure import measure_sequence
from util.anchors.reference import PIXELS, ReferenceSoftware
from util.color import Color, rgb_to_yuv, yuv_to_float_rgb
from util.comparison.__main__ import main as compare_main
from util.comparison.curves import dataset_of
from util.errors import InputError
from util.evaluation.yuv import metric_of

CLIP = Path(__file__).parents[1] / "demo" / "Demo" / "BigBuckBunny"
BT709 = Color("BT709", "limited")


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_settings_of_the_libraries():
    assert LibraryEncoder("x265", BT709).parameters(27) == "qp=27:keyint=32:log-level=error"
    assert LibraryEncoder("x265-fair", BT709).parameters(22) == (
        "qp=22:keyint=32:log-level=error:info=0:psy-rd=0:psy-rdoq=0")
    assert LibraryEncoder("x265", BT709).preset == "veryslow"
    assert LibraryEncoder("x264", BT709, keyint=8).parameters(27) == "qp=27:keyint=8"
    assert LibraryEncoder("x264-fair", BT709).parameters(27) == "qp=27:keyint=32:psy=0"
    assert LibraryEncoder("x264", BT709).preset == "veryfast"


@pytest.mark.slow
def test_x265_on_the_bundled_clip(tmp_path, capsys):
    """Both settings at four QPs, then a table and a plot. Eight frames instead of 33: veryslow is what it says."""
    flags = ["--QP", "22", "27", "32", "37", "--input", str(CLIP), "--color_transform", "BT709", "--test_seq_len", "8",
             "--save_dir", str(tmp_path)]
    for anchor in ("x265", "x265-fair"):
        assert main([anchor, *flags]) == 0
    for metric, suffix, bounds in (("PSNR", "", (30, 48)), ("MS-SSIM", "_MS-SSIM", (0.9, 1))):
        for qp in (22, 27, 32, 37):
            rows = read(tmp_path / f"x265{suffix}-{qp}" / "report" / "BigBuckBunny.csv")
            assert [row["frame"] for row in rows] == [f"frame_{n}" for n in range(1, 9)]
            assert all(bounds[0] < float(row[metric]) < bounds[1] and row["my"] == "0" for row in rows)
        folders = {anchor: [str(tmp_path / f"{anchor}{suffix}-{qp}") for qp in (22, 27, 32, 37)]
                   for anchor in ("x265", "x265-fair")}
        assert compare_main(["--curve", "x265", *folders["x265"], "--curve", "x265-fair", *folders["x265-fair"],
                             "--anchor", "x265", "--out", str(tmp_path / "out")]) == 0
        assert (tmp_path / "out" / f"{dataset_of('BigBuckBunny')}_{metric}.png").stat().st_size > 1000
    table = (tmp_path / "out" / "x265-fair_vs_x265_PSNR.md").read_text()
    saving = float(next(line for line in table.splitlines() if line.startswith("| BigBuckBunny")).split("|")[2])
    assert saving < -10                           # over so few frames the settings SEI alone weighs more than 6 %
    summary = (tmp_path / "x265-22" / "brief_summary_BigBuckBunny.txt").read_text().splitlines()
    assert summary[1].split()[:2] == ["BigBuckBunn", summary[3].split()[1]] and summary[2] == "=" * 48


@pytest.mark.parametrize(("library", "sei"), [("x264", (400, 1000)), ("x265", (1500, 4000))])
def test_bits_and_frame_types(library, sei):
    """Rates add up to the whole stream; an I-frame every keyint frames; the settings SEI is in the first frame."""
    source = FirstFrames(PngFolder(CLIP), 6)
    plain, fair = (list(LibraryEncoder(name, BT709, keyint=4, preset="ultrafast").code(source, 30))
                   for name in (library, f"{library}-fair"))
    assert len(plain) == len(fair) == 6
    for frame, original in zip(plain, source, strict=True):
        assert torch.equal(frame.original, original)
        error = (frame.decoded - original / 255).square().mean()
        assert -10 * torch.log10(error) > 30
    bits = [frame.bits for frame in plain]
    assert min(bits[0], bits[4]) > 1.5 * max(bits[1:4] + bits[5:])
    assert 8 * sei[0] < bits[0] - fair[0].bits < 8 * sei[1]
    rows = measure_sequence(LibraryEncoder(library, BT709, keyint=4, preset="ultrafast"), source, 30,
                            {"PSNR": metric_of("PSNR", "BT709")})
    assert sum(row.rate for row in rows["PSNR"]) * 416 * 240 == pytest.approx(sum(bits))


def test_yuv_psnr_beside_rgb(tmp_path):
    flags = ["x265-fair", "--QP", "37", "--input", str(CLIP), "--color_transform", "BT601", "--test_seq_len", "2",
             "--metrics", "PSNR", "PSNR-YUV", "--save_dir", str(tmp_path)]
    assert main(flags) == 0
    rgb, yuv = (float(read(tmp_path / folder / "report" / "BigBuckBunny.csv")[1][metric])
                for folder, metric in (("x265-fair-37", "PSNR"), ("x265-fair_PSNR-YUV-37", "PSNR-YUV")))
    assert yuv > rgb + 1


STAND_IN = '''#!{python}
import os, sys
assert sys.argv[1] == "-c" and os.path.isfile(sys.argv[2])
given = dict(item[2:].split("=", 1) for item in sys.argv[3:])
paths = {{name: given.pop(name) for name in ("InputFile", "BitstreamFile", "ReconFile")}}
if given["QP"] == "13":
    sys.exit("out of luck")
expected = {expected!r} | {{"QP": given["QP"]}}
assert given == expected, (given, expected)
data = open(paths["InputFile"], "rb").read()
frames, size = int(given["FramesToBeEncoded"]), 3 * int(given["SourceWidth"]) * int(given["SourceHeight"])
assert len(data) == frames * size
open(paths["ReconFile"], "wb").write(bytes(max(0, value - 1) for value in data))
open(paths["BitstreamFile"], "wb").write(bytes(1000))
for n in range(frames):
    print(f"POC {{n:4d}} LId:  0 TId: 0 ( {{'IDR_N_LP, I' if n == 0 else 'TRAIL, B'}}-SLICE, QP {{given['QP']}} ) "
          f"{{100 * (n + 1):10d}} bits [Y 40.1 dB    U 41.0 dB    V 42.0 dB] [ET     1 ]")
'''


@pytest.fixture
def source(tmp_path) -> PngFolder:
    with open_sink(tmp_path / "clip", 48, 64) as write:
        for frame in islice(PngFolder(CLIP), 3):
            write(frame[:, :48, :64])
    return PngFolder(tmp_path / "clip", rate=Fraction(50))


def stand_in(tmp_path: Path, expected: dict[str, str]) -> tuple[Path, Path]:
    program, config = tmp_path / "encoder", tmp_path / "encoder.cfg"
    program.write_text(STAND_IN.format(python=sys.executable, expected=expected))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    config.write_text("# settings\n")
    return program, config


VTM = {"InputBitDepth": "8", "InputChromaFormat": "444", "ChromaFormatIDC": "444", "InternalBitDepth": "10",
       "OutputBitDepth": "8", "DecodingRefreshType": "2", "FrameRate": "50", "FrameSkip": "0", "SourceWidth": "64",
       "SourceHeight": "48", "FramesToBeEncoded": "3", "Level": "4.1", "IntraPeriod": "32"}
HM = VTM | {"InternalBitDepthC": "10", "OutputBitDepthC": "8"}


@pytest.mark.parametrize("name, expected", [("VTM", VTM), ("HM", HM)])
def test_reference_software(tmp_path, source, name, expected):
    """The command line of section 13, bits from the log and the file, and pixels from the reconstruction."""
    program, config = stand_in(tmp_path, expected)
    anchor = ReferenceSoftware(name, program, config, BT709)
    frames = list(anchor.code(source, 27))
    assert [frame.bits for frame in frames] == [8000 - 200 - 300, 200, 300]
    for frame, original in zip(frames, source, strict=True):
        assert torch.equal(frame.original, original)
        lower = [np.maximum(plane, 1) - 1 for plane in rgb_to_yuv(original.numpy(), PIXELS, BT709)]
        assert np.array_equal(frame.decoded.numpy(), yuv_to_float_rgb(lower, PIXELS, BT709))
    with pytest.raises(InputError, match=r"failed with status 1 \(out of luck\)"):
        list(anchor.code(source, 13))


def test_reference_software_from_the_command_line(tmp_path, source):
    program, config = stand_in(tmp_path, VTM)
    flags = ["VTM", "--QP", "27", "--input", str(tmp_path / "clip"), "--color_transform", "BT709", "--frame_rate", "50",
             "--metrics", "PSNR", "--encoder", str(program), "--config", str(config), "--save_dir", str(tmp_path)]
    assert main(flags) == 0
    rows = read(tmp_path / "VTM-27" / "report" / "clip.csv")
    assert [float(row["Rate"]) * 64 * 48 for row in rows] == pytest.approx([7500, 200, 300])


def test_reference_software_that_is_another_program(tmp_path, source):
    config = tmp_path / "x.cfg"
    config.write_text("")
    program = tmp_path / "program"
    for script, words in (("#!/bin/sh\necho hello\n", "logged 0 pictures of 3"),
                          ("#!/bin/sh\nfor n in 0 1 2; do echo \"POC $n ( I ) 10 bits\"; done\n", "stream is missing"),
                          ("not a program", "cannot be run")):
        program.write_text(script)
        program.chmod(0o755)
        with pytest.raises(InputError, match=words):
            list(ReferenceSoftware("VTM", program, config, BT709).code(source, 27))
    with pytest.raises(InputError, match="VTM needs --encoder, and None is no file"):
        ReferenceSoftware("VTM", None, config, BT709)


@pytest.mark.parametrize("flags, words", [
    (["x265", "--QP", "30", "60"], "QP 60 is outside 0..51"), (["VTM", "--QP", "22"], "VTM needs --encoder"),
    (["x265", "--QP", "30", "--metrics", "MS-SSIM", "--test_crop"], "MS-SSIM needs both sides above 160"),
    (["x265", "--QP", "30", "--input", "-"], "cannot be a pipe"),
    (["x265", "--QP", "30", "--input", "nowhere.mp4"], "nowhere.mp4 does not exist")])
def test_bad_input(tmp_path, source, capsys, flags, words):
    more = [] if "--input" in flags else ["--input", str(tmp_path / "clip"), "--crop_factor", "16"]
    assert main([*flags, *more, "--color_transform", "BT709", "--save_dir", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_nothing_to_measure_and_odd_sizes(tmp_path, capsys):
    assert main(["x265", "--QP", "30", "--color_transform", "BT709"]) == 2
    with open_sink(tmp_path / "odd", 17, 16) as write:
        write(torch.from_numpy(np.zeros((3, 17, 16), np.uint8)))
    flags = ["--QP", "30", "--metrics", "PSNR", "--color_transform", "BT709", "--input", str(tmp_path / "odd")]
    assert main(["x265", *flags, "--save_dir", str(tmp_path)]) == 2
    errors = capsys.readouterr().err
    assert "nothing to measure" in errors and "x265 needs even sides" in errors


def test_data_sets_from_pngs_and_raw_files_agree(tmp_path):
    """A sequence of the table, once as PNGs and once raw: equal reports and summaries."""
    raw = tmp_path / "raw"
    raw.mkdir()
    path = raw / "BQSquare_416x240_60.yuv"
    size = 416 * 240 * 3 // 2
    with open_sink(path, 240, 416, VideoOptions(chroma="420", matrix="BT709", range="limited")) as write:
        for frame in islice(PngFolder(CLIP), 2):
            write(frame)
    with path.open("r+b") as file:                              # 600 frames as the table wants, most of them a hole
        file.truncate(600 * size)
    common = ["--color_transform", "BT709"]
    assert prepare(["--raw", str(raw), "--root", str(tmp_path), *common, "--dataset", "HEVC-D",
                    "--test_seqs", "BQSquare", "--frames", "2"]) == 0
    flags = ["x265", "--QP", "40", *common, "--test_dataset", "HEVC-D", "--test_seqs", "BQSquare",
             "--test_seq_len", "2", "--metrics", "PSNR", "--save_dir"]
    assert main([*flags, str(tmp_path / "a"), "--data", str(tmp_path)]) == 0
    assert main([*flags, str(tmp_path / "b"), "--raw", str(raw)]) == 0
    files = [{file.relative_to(tmp_path / name): file.read_bytes()
              for file in (tmp_path / name).rglob("*") if file.is_file()} for name in "ab"]
    assert files[0] == files[1]
    assert {path.name for path in files[0]} == {"BQSquare_BT709.csv", "brief_summary_HEVC-D_BT709.txt"}

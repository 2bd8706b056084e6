"""dataloader/prepare.py: raw data sets to PNGs and back to the same pixels."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataloader import prepare
from dataloader.open import VideoOptions, open_sink
from dataloader.prepare import main, raw_source
from dataloader.sequences import Sequence
from dataloader.source import PngFolder
from util.errors import InputError

SMALL = Sequence("HEVC-D", "Tiny", 18, 10, 4, 50, "Tiny_18x10_50", ())
OTHER = Sequence("HEVC-D", "Other", 16, 8, 3, 30, "Other_16x8_30", ())
RGB = Sequence("HEVC-RGB", "Colour", 16, 8, 2, 24, "Colour_16x8_24_10bit_444", ())


@pytest.fixture
def raw(tmp_path, monkeypatch) -> Path:
    """A folder of raw files of three made-up sequences, which stand for the table."""
    table = (SMALL, OTHER, RGB)
    monkeypatch.setattr("dataloader.sequences.all_sequences", lambda: table)
    monkeypatch.setattr(prepare, "all_sequences", lambda: table)
    folder = tmp_path / "raw" / "deep"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    (folder / "Tiny_18x10_50.yuv").write_bytes(rng.integers(0, 256, 4 * 270, dtype=np.uint8).tobytes())
    (folder / "Other_16x8_30fps_420_8bit_YUV.yuv").write_bytes(rng.integers(0, 256, 3 * 192, dtype=np.uint8).tobytes())
    (folder / "Colour_16x8_24_10bit_444.rgb").write_bytes(rng.integers(0, 1024, 2 * 384).astype("<u2").tobytes())
    return tmp_path / "raw"


def arguments(raw: Path, root: Path, *more: str) -> list[str]:
    return ["--raw", str(raw), "--root", str(root), "--color_transform", "BT601", "BT709", "--rgb_planes", "gbr", *more]


def test_raw_and_png_give_the_same_frames(raw, tmp_path):
    root = tmp_path / "data"
    assert main(arguments(raw, root)) == 0
    folders = sorted(str(path.relative_to(root)) for path in root.glob("*/*"))
    assert folders == ["HEVC-D/Other", "HEVC-D/Other_BT709", "HEVC-D/Tiny", "HEVC-D/Tiny_BT709", "HEVC-RGB/Colour"]
    for sequence in (SMALL, OTHER, RGB):
        for color in ("BT601", "BT709"):
            png = sequence.source(root, color, sequence.frames)
            direct = raw_source(sequence, raw, color, length=sequence.frames, rgb_planes="gbr")
            assert (png.height, png.width, png.rate, png.color) == (
                direct.height, direct.width, direct.rate, direct.color)
            assert all(torch.equal(a, b) for a, b in zip(png, direct, strict=True))
    assert not torch.equal(*(next(iter(SMALL.source(root, color, 1))) for color in ("BT601", "BT709")))


def test_rgb_material_is_not_converted(raw):
    samples = np.fromfile(raw / "deep" / "Colour_16x8_24_10bit_444.rgb", dtype="<u2")[:384].reshape(3, 8, 16)
    green, blue, red = np.floor(samples / 1023 * 255 + 0.5)
    frame = next(iter(raw_source(RGB, raw, "BT709", rgb_planes="gbr")))
    assert np.array_equal(frame.numpy(), np.stack([red, green, blue]))
    with pytest.raises(InputError, match="plane order.*--rgb_planes rgb or gbr"):
        raw_source(RGB, raw, "BT709")


def test_a_run_goes_on_where_it_stopped(raw, tmp_path, capsys):
    root = tmp_path / "data"
    flags = arguments(raw, root, "--test_seqs", "Tiny", "--dataset", "HEVC-D")
    assert main([*flags, "--frames", "2"]) == 0
    before = (root / "HEVC-D/Tiny/frame_1.png").stat().st_mtime_ns
    (root / "HEVC-D/Tiny/frame_2.png").unlink()
    capsys.readouterr()
    assert main(flags) == 0
    assert f"{root}/HEVC-D/Tiny: 4 frames, 3 new" in capsys.readouterr().out
    assert (root / "HEVC-D/Tiny/frame_1.png").stat().st_mtime_ns == before
    assert PngFolder(root / "HEVC-D/Tiny").length == 4
    assert main([*flags, "--check"]) == 0
    assert f"{root}/HEVC-D/Tiny_BT709: 4 of 4 frames" in capsys.readouterr().out


def test_frames_of_other_origin_are_not_mixed_with(raw, tmp_path, capsys):
    root = tmp_path / "data"
    flags = arguments(raw, root, "--test_seqs", "Tiny", "--dataset", "HEVC-D")
    assert main([*flags, "--frames", "1"]) == 0
    assert main([*flags, "--color_range", "full"]) == 2
    assert "remove it or choose another --root" in capsys.readouterr().err
    (root / "HEVC-D/Tiny/prepared.json").unlink()
    assert main(flags) == 2
    assert "frames of unknown origin" in capsys.readouterr().err
    assert json.loads((root / "HEVC-D/Tiny_BT709/prepared.json").read_text())["matrix"] == "BT709"


def test_what_is_missing_is_told_and_the_rest_is_done(raw, tmp_path, capsys):
    (raw / "deep" / "Tiny_18x10_50.yuv").write_bytes(bytes(3 * 270))
    (raw / "deep" / "Colour_16x8_24_10bit_444.rgb").unlink()
    assert main(arguments(raw, tmp_path / "data")) == 2
    output = capsys.readouterr()
    problems = output.err.splitlines()
    assert len(problems) == 2 and "Tiny_18x10_50.yuv has 3 frames, the sequence has 4" in problems[0]
    assert f"HEVC-RGB Colour: Colour_16x8_24_10bit_444.yuv: no file under {raw}" in problems[1]
    assert "HEVC-D/Other_BT709: 3 frames, 3 new" in output.out


def test_wrong_sizes_and_doubles(raw, tmp_path, capsys):
    path = raw / "deep" / "Tiny_18x10_50.yuv"
    path.write_bytes(bytes(4 * 270 - 1))
    (raw / "Other_16x8_30.yuv").write_bytes(bytes(3 * 192))
    assert main(arguments(raw, tmp_path / "data", "--dataset", "HEVC-D", "--check")) == 2
    problems = capsys.readouterr().err
    assert "1079 bytes, no whole number of frames of 270 bytes" in problems and "several files" in problems
    assert not (tmp_path / "data").exists()


def test_bad_flags(raw, tmp_path, capsys):
    assert main(arguments(tmp_path / "nowhere", tmp_path)) == 2
    assert main(arguments(raw, tmp_path, "--dataset", "HEVC-Z")) == 2
    assert main(arguments(raw, tmp_path, "--frames", "0")) == 2
    errors = capsys.readouterr().err
    assert "is no folder" in errors and "HEVC-Z is unknown" in errors and "--frames 0 must be at least 1" in errors


def test_training_layout(tmp_path, capsys):
    """Raw and compressed videos of 10 bits; a short one is told."""
    folder = tmp_path / "raw"
    folder.mkdir()
    rng = np.random.default_rng(0)
    (folder / "Aa_16x8_25fps_10bit_420.yuv").write_bytes(rng.integers(0, 1024, 64 * 192).astype("<u2").tobytes())
    options = VideoOptions(chroma="420", depth=10, matrix="BT709", range="limited")
    for name, frames in (("Bb_16x8_25fps_10bit_420.mp4", 64), ("Cc_16x8_25fps_10bit_420.mp4", 63)):
        with open_sink(folder / name, 8, 16, options) as write:
            for _ in range(frames):
                write(torch.from_numpy(rng.integers(0, 256, (3, 8, 16), dtype=np.uint8)))
    flags = ["--raw", str(folder), "--root", str(tmp_path), "--dataset", "BVI-DVC", "--color_transform", "BT709"]
    assert main(flags) == 2
    errors = capsys.readouterr().err
    assert "3 of 800 videos" in errors and "has 63 frames, but 64 are needed" in errors
    for stem in ("Aa_16x8_25fps_10bit_420", "Bb_16x8_25fps_10bit_420"):
        names = {path.name for path in (tmp_path / "BVI-DVC" / stem).glob("*.png")}
        assert names == {f"Frame_{n}.png" for n in range(64)}
        assert Image.open(tmp_path / "BVI-DVC" / stem / "Frame_0.png").size == (16, 8)
    assert main([*flags, "--color_transform", "BT601", "BT709"]) == 2


def test_processes_give_the_same(raw, tmp_path):
    for jobs in ("1", "2"):
        assert main(arguments(raw, tmp_path / jobs, "--jobs", jobs)) == 0
    files = [{path.relative_to(tmp_path / jobs): path.read_bytes() for path in (tmp_path / jobs).rglob("*.png")}
             for jobs in ("1", "2")]
    assert files[0] == files[1] and len(files[0]) == 16

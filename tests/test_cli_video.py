"""Any video through the command line, at tiny width: one content, whatever the way in; sharing, metrics, pictures."""
import csv
import gc
import io
import os
import subprocess
import sys
import tracemalloc
from fractions import Fraction
from functools import partialmethod

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from training_helpers import free_port

from conftest import write_frames
from dataloader.open import VideoOptions, open_sink, open_source
from helpers import ROOT, TINY_FLAGS
from seeded import seeded_video
from util.coding.reader import StreamReader
from util.coding.session import Session
from util.video import VideoFacts

YUV = VideoOptions(chroma="420", depth=8, matrix="BT709", range="limited")
COLOR_FLAGS = ("--color_matrix", "BT709", "--color_range", "limited")


@pytest.fixture
def run(hytip, weights):
    def command(*flags):
        status, out, err = hytip(*TINY_FLAGS, "--weights", weights, "--device", "cpu", "--threads", 1, *flags)
        assert status == 0 and "error" not in err, err
        return out
    return command


def write_video(path, frames, options=YUV, rate=Fraction(50)):
    with open_sink(path, frames.shape[2], frames.shape[3], options, VideoFacts(rate)) as write:
        for frame in frames:
            write(frame)
    return path


@pytest.fixture(scope="module")
def same_content(tmp_path_factory):
    """4:2:0 content as raw file, y4m, mkv, mp4, and as the PNGs that the raw file decodes to. Read only."""
    folder, frames = tmp_path_factory.mktemp("in"), seeded_video(3, 48, 64, 3)
    paths = [write_video(folder / name, frames)
             for name in ("clip_64x48_50.yuv", "clip.y4m", "clip.mkv", "clip.mp4")]
    source = open_source(paths[0], VideoOptions(matrix="BT709", range="limited"))
    pngs = write_frames(folder / "clip", torch.stack([frame.float() / 255 for frame in source]))
    return [*paths, pngs]


def test_every_way_in_gives_the_same_report(run, same_content, tmp_path):
    reports = []
    for n, path in enumerate(same_content):
        out = tmp_path / f"out{n}"
        run("--test", "--input", path, *COLOR_FLAGS, "--gop", 2, "--QP", 30, "--save_dir", out)
        report, = (out / "report").iterdir()
        reports.append(report.read_bytes())
        assert (out / "brief_summary_Video.txt").read_text().splitlines()[-1].split()[0] == "Video"
    assert len(set(reports)) == 1 and reports[0].count(b"\n") == 4


def test_every_way_in_gives_the_same_stream(run, same_content, tmp_path):
    streams = set()
    for n, path in enumerate(same_content):
        run("--compress", "--input", path, *COLOR_FLAGS, "--QP", 30, "--frames", 2, "--output", tmp_path / f"{n}.bin")
        stream = (tmp_path / f"{n}.bin").read_bytes()
        header = StreamReader(io.BytesIO(stream)).header
        streams.add(stream[len(header.pack()):])                        # the header tells rate and colour
    assert len(streams) == 1


def test_raw_data_sets_equal_prepared_ones(run, tmp_path):
    big = seeded_video(3, 16, 16, 4).repeat(1, 1, 15, 26)                 # 416x240 and 300 frames, as it must be
    raw = write_video(tmp_path / "raw" / "RaceHorses_416x240_30.yuv", big)
    os.truncate(raw, raw.stat().st_size * 100)
    source = open_source(tmp_path / "raw" / "RaceHorses_416x240_30.yuv", VideoOptions(matrix="BT709", range="limited"))
    first = [frame for frame, _ in zip(source, range(3))]
    write_frames(tmp_path / "data" / "HEVC-D" / "RaceHorses1_BT709", torch.stack(first).float() / 255)
    flags = ("--test", "--test_dataset", "HEVC-D", "--test_seqs", "RaceHorses1", "--color_transform", "BT709",
             "--test_seq_len", 2, "--QP", 5)
    run(*flags, "-data", tmp_path / "data", "--save_dir", tmp_path / "png")
    run(*flags, "--raw", tmp_path / "raw", "--save_dir", tmp_path / "yuv")
    name = "report/RaceHorses1_BT709.csv"
    assert (tmp_path / "png" / name).read_bytes() == (tmp_path / "yuv" / name).read_bytes()


def test_decoded_video_out(run, same_content, tmp_path):
    run("--compress", "--input", same_content[0], *COLOR_FLAGS, "--output", tmp_path / "x.bin")
    run("--decompress", "--input", tmp_path / "x.bin", "--output", tmp_path / "frames")
    for name in ("out.mkv", "out.mp4", "out.y4m", "out_64x48_50_444.yuv"):
        run("--decompress", "--input", tmp_path / "x.bin", "--output", tmp_path / name, *COLOR_FLAGS)
        source = open_source(tmp_path / name, VideoOptions(matrix="BT709", range="limited"))
        for n, frame in enumerate(source, start=1):
            with Image.open(tmp_path / "frames" / f"frame_{n}.png") as image:
                expected = np.array(image).transpose(2, 0, 1).astype(int)
            assert abs(frame.numpy().astype(int) - expected).max() <= 2, name    # 4:4:4 rounds once more
        assert n == 3


def test_a_video_decodes_to_a_pipe_and_is_read_from_one(weights, same_content, tmp_path):
    base = [sys.executable, str(ROOT / "HyTIP.py"), *map(str, TINY_FLAGS), "--weights", str(weights), "--device", "cpu",
            "--threads", "1", *COLOR_FLAGS]
    stream = subprocess.run([*base, "--compress", "--input", "-", "--output", "-"], capture_output=True, timeout=300,
                            input=same_content[1].read_bytes())
    assert stream.returncode == 0, stream.stderr
    video = subprocess.run([*base, "--decompress", "--input", "-", "--output", "-"], capture_output=True, timeout=300,
                           input=stream.stdout)
    assert video.returncode == 0, video.stderr
    assert video.stdout.startswith(b"YUV4MPEG2") and video.stdout.count(b"FRAME\n") == 3


def test_processes_of_torchrun_share_the_sequences_out(run, weights, tmp_path, monkeypatch):
    """Two processes with the environment that torchrun gives them; this is the first."""
    for n, name in enumerate(("BQSquare", "RaceHorses1", "BlowingBubbles")):
        write_frames(tmp_path / "data" / "HEVC-D" / name, seeded_video(2, 33 + 8 * n, 50, n))
    flags = ["--test", "-data", tmp_path / "data", "--test_dataset", "HEVC-D", "--test_seqs", "BQSquare",
             "RaceHorses1", "BlowingBubbles", "--test_seq_len", "2", "--QP", "3", "60", "--save_dir"]
    run(*flags, tmp_path / "alone")
    for name, value in (("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", free_port()), ("WORLD_SIZE", 2),
                        ("OMP_NUM_THREADS", 1)):
        monkeypatch.setenv(name, str(value))
    words = [ROOT / "HyTIP.py", *TINY_FLAGS, "--weights", weights, "--device", "cpu", "--threads", 1, *flags,
             tmp_path / "shared"]
    second = subprocess.Popen([sys.executable, *map(str, words)], env={**os.environ, "RANK": "1", "LOCAL_RANK": "1"},
                              stderr=subprocess.PIPE, text=True)
    try:
        monkeypatch.setenv("RANK", "0")
        run(*flags, tmp_path / "shared")
        assert second.wait(60) == 0 and "error" not in second.stderr.read()
    finally:
        second.kill()
        second.wait()
    files = [path.relative_to(tmp_path / "alone") for path in (tmp_path / "alone").rglob("*") if path.is_file()]
    assert len(files) == 2 * (3 + 2)
    for path in files:
        if path.suffix != ".json":
            assert (tmp_path / "alone" / path).read_bytes() == (tmp_path / "shared" / path).read_bytes()


def test_further_metrics_lie_beside(run, tmp_path):
    clip = write_frames(tmp_path / "clip", seeded_video(2, 176, 192, 5))
    run("--test", "--input", clip, "--metrics", "MS-SSIM", "PSNR-YUV", "--save_dir", tmp_path / "out")
    for folder, metric in (("out", "PSNR"), ("out_MS-SSIM", "MS-SSIM"), ("out_PSNR-YUV", "PSNR-YUV")):
        with (tmp_path / folder / "report" / "clip.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert metric in rows[0] and float(rows[1][metric]) > 0


def test_pictures(run, tmp_path):
    clip = write_frames(tmp_path / "clip", seeded_video(2, 40, 56, 6))
    run("--test", "--input", clip, "--visualize", "--save_dir", tmp_path / "out")
    folder = tmp_path / "out" / "visualize" / "clip"
    assert {p.name for p in folder.iterdir()} == {"source", "decoded", "flow", "decoded_flow", "mask", "prediction",
                                                  "masked", "residual", "error", "bits", "contact_sheet.png"}
    assert {p.name for p in (folder / "decoded").iterdir()} == {"frame_1.png", "frame_2.png"}
    run("--test", "--input", clip, "--save_dir", tmp_path / "plain")
    assert ((tmp_path / "plain" / "report" / "clip.csv").read_bytes()
            == (tmp_path / "out" / "report" / "clip.csv").read_bytes())


def live_bytes() -> int:
    """Of all tensors, and of whatever Python has allocated since tracemalloc was started."""
    gc.collect()
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in gc.get_objects()
                if type(tensor) is torch.Tensor and tensor.device.type == "cpu"}
    return sum(storages.values()) + tracemalloc.get_traced_memory()[0]


def test_memory_does_not_grow_with_the_frames(run, tmp_path, monkeypatch):
    """5 more frames of 64x48 take 46 kB as bytes, 184 kB as floats; far more with the activations of each."""
    clip, stream, seen = write_frames(tmp_path / "clip", seeded_video(9, 48, 64, 7)), tmp_path / "x.bin", []

    def watched(self, *arguments, method):
        seen.append(live_bytes() if len(seen) in (3, 8) else None)
        return method(self, *arguments)
    for name in ("start", "decode"):
        monkeypatch.setattr(Session, name, partialmethod(watched, method=getattr(Session, name)))
    for command in (("--compress", "--input", clip, "--output", stream),
                    ("--decompress", "--input", stream, "--output", tmp_path / "decoded.y4m")):
        seen.clear()
        tracemalloc.start()
        run(*command)
        tracemalloc.stop()
        assert len(seen) == 9 and seen[8] < seen[3] + 30_000


@pytest.fixture
def thinnest(tmp_path):
    """Flags of a model of two or four channels everywhere."""
    flags = []
    for flag, path in zip(TINY_FLAGS[::2], TINY_FLAGS[1::2]):
        content = yaml.safe_load(path.read_text())
        for key, value in content["model_params"].items():
            if key in ("channel_N", "g_ch_16x"):
                content["model_params"][key] = 4
            elif key in ("enc_cond_dims", "dec_cond_dims", "unet_channels", "mask_channels", "hidden_channels"):
                content["model_params"][key] = [2] * len(value)
            elif type(value) is int and key not in ("predprior_input_dim", "levels"):
                content["model_params"][key] = 2
        (tmp_path / path.name).write_text(yaml.safe_dump(content))
        flags += [flag, tmp_path / path.name]
    return flags


@pytest.mark.slow
def test_a_long_video_in_bounded_memory_of_a_process(thinnest, tmp_path):
    """416x240: 290 more frames take 87 MB as bytes; far more as floats, or with the activations of each."""
    pattern = seeded_video(4, 240, 416, 7)
    with open_sink(tmp_path / "long.mkv", 240, 416, YUV, VideoFacts(Fraction(30))) as write:
        for n in range(300):
            write(pattern[n % 4])
    script = ("import resource, sys; sys.path.insert(0, {root!r}); import HyTIP\n"
              "for words in {commands!r}:\n"
              "    if HyTIP.main(words): sys.exit(1)\n"
              "    print('MiB', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)")

    def peaks(*commands) -> list[int]:
        """Of one process, after each command."""
        base = [*thinnest, "--untrained", "--device", "cpu", "--threads", 1, *COLOR_FLAGS]
        words = [list(map(str, [*base, *command])) for command in commands]
        done = subprocess.run([sys.executable, "-c", script.format(root=str(ROOT), commands=words)],
                              capture_output=True, text=True, timeout=550)
        assert done.returncode == 0, done.stderr
        return [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("MiB")]

    compress = ["--compress", "--input", tmp_path / "long.mkv", "--output"]
    few, many = peaks([*compress, tmp_path / "few.bin", "--frames", 10], [*compress, tmp_path / "many.bin"])
    assert many < few + 30
    few, many = peaks(["--decompress", "--input", tmp_path / "few.bin", "--output", tmp_path / "few.mkv"],
                      ["--decompress", "--input", tmp_path / "many.bin", "--output", tmp_path / "many.mkv"])
    assert many < few + 30

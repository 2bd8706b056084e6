"""Targets on codecs: what the analysis says is what the stream holds; flags; several streams in one reading; plots."""
import argparse
import io
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from stream_helpers import clip, tiny_codec

from benchmarks import rate_control as bench
from helpers import ROOT, TINY_FLAGS, tiny_codec_model
from models.catalogue import CODECS
from models.codec import RATES
from seeded import seeded_video
from util.arithmetic import choose_arithmetic
from util.cli.amounts import bit_rate, bit_rates, byte_size, decibels, said, seconds
from util.coding.bitstream import SYNC, Packet, pack_end
from util.coding.codec import Codec
from util.coding.gop import CodingPlan
from util.coding.rate_control.controller import Rates
from util.coding.rate_control.one_pass import OnePass
from util.coding.rate_control.search import Goal
from util.coding.rate_control.two_pass import Analysis
from util.coding.reader import StreamReader
from util.errors import InputError
from util.evaluation.metrics import psnr
from util.rate_plot import Sent, plot_rate

PLAN = CodingPlan(qp=32, intra_qp=34, gop=2)


def between(analysis: Analysis, share: float) -> float:
    """A size that lies so far between those of the lowest and the highest QP, in ln."""
    least, most = (analysis.size((base,) * analysis.length) for base in (0, analysis.rates.highest))
    return least * (most / least) ** share


@pytest.mark.parametrize("name", sorted(CODECS))
def test_two_passes_meet_a_size(name):
    """For every codec; the stream has the very bytes, decodes as any other, and after any cut up to there."""
    codec = Codec(tiny_codec_model(name), choose_arithmetic("cpu", threads=1))
    frames = clip(4, 64, 64)
    analysis = Analysis(codec, frames, Rates.of(codec.model, PLAN))
    target = between(analysis, 0.5)
    found = analysis.search(Goal.size(target))
    parts = list(codec.encode(frames, analysis.scheduled(found.bases, target)))
    stream = b"".join(part.data for part in parts)
    assert len(stream) == analysis.size(found.bases) <= target
    assert found.met and len(stream) >= 0.995 * target
    decoded = list(codec.decode(io.BytesIO(stream)))
    for part, frame, base in zip(parts[1:-1], decoded, found.bases, strict=True):
        assert torch.equal(part.frame, frame.frame) and frame.header.qp == base + 2 * frame.header.intra
    for kept in range(1, 4):
        cut = b"".join(part.data for part in parts[:kept + 1]) + parts[kept + 1].data[:-1]
        assert len(list(codec.decode(cut, keep_going=True, report=lambda line: None))) == kept


@pytest.mark.parametrize("bases", [(20, 20, 20, 20), (20, 20, 21, 20), (20, 21, 30, 30), (0, 61, 5, 5)])
def test_the_size_of_an_analysis_is_that_of_the_stream(bases):
    """Frames whose QP is not that of most others have to tell it, and that takes bytes."""
    codec, frames = tiny_codec(), clip(4, 64, 64)
    analysis = Analysis(codec, frames, Rates.of(codec.model, PLAN))
    assert analysis.size(bases) == sum(map(len, codec.compress(frames, analysis.scheduled(bases))))


def test_only_gops_that_changed_are_coded_again():
    codec, coded = tiny_codec(), []
    analysis = Analysis(codec, clip(5, 64, 64), Rates.of(codec.model, PLAN),
                        progress=lambda *entry: coded.append(entry))
    analysis.size((20,) * 5)
    assert coded == [(1, done, 5) for done in range(1, 6)]
    analysis.size((20, 20, 20, 21, 20))
    assert coded[5:] == [(2, 1, 2), (2, 2, 2)]
    analysis.size((20,) * 5)
    assert analysis.passes == 2 and len(coded) == 7


def test_quality_is_that_of_the_decoded_frames():
    codec, frames = tiny_codec(), clip(3, 64, 64)
    analysis = Analysis(codec, frames, Rates.of(codec.model, PLAN), psnr)
    bases = (10, 30, 50)
    stream = b"".join(part.data for part in codec.encode(frames, analysis.scheduled(bases)))
    values = [psnr(frame.frame, original[None] / 255)
              for frame, original in zip(codec.decode(stream), frames, strict=True)]
    assert analysis.quality(bases) == pytest.approx(sum(values) / 3, abs=1e-4)


def test_a_stream_that_outgrows_its_analysis_is_not_finished():
    codec, frames = tiny_codec(), clip(2, 64, 64)
    analysis = Analysis(codec, frames, Rates.of(codec.model, PLAN))
    size = analysis.size((30, 30))
    assert sum(len(part.data) for part in codec.encode(frames, analysis.scheduled((30, 30), size))) == size
    with pytest.raises(InputError, match="at frame 2 the stream is larger than in the analysis"):
        list(codec.encode(frames, analysis.scheduled((30, 30), size - 1)))


def test_what_can_be_read_once_has_no_targets_of_the_whole():
    codec = tiny_codec()
    for frames in (iter(clip(2, 64, 64)), []):
        with pytest.raises(InputError, match="can be read again, with at least one frame; give a file, or --bitrate"):
            Analysis(codec, frames, Rates.of(codec.model, PLAN))


# Amounts

@pytest.mark.parametrize("read, text, value", [
    (bit_rate, "300k", 3e5), (bit_rate, "1.5M", 1.5e6), (bit_rate, "300 kbit/s", 3e5), (bit_rate, "64000", 64e3),
    (byte_size, "2MB", 2e6), (byte_size, "1.5MiB", 1.5 * 2**20), (byte_size, "800k", 8e5), (byte_size, "77", 77),
    (seconds, "1s", 1), (seconds, "500ms", 0.5), (seconds, ".25", 0.25), (decibels, "38.5dB", 38.5),
    (bit_rates, "150k,300k", [15e4, 3e5])])
def test_amounts(read, text, value):
    assert read(text) == pytest.approx(value)


@pytest.mark.parametrize("read, text", [
    (bit_rate, "0"), (bit_rate, "-300k"), (bit_rate, "fast"), (bit_rate, "nan"), (bit_rates, "150k,"),
    (bit_rates, "1k,1000"), (byte_size, "2s"), (seconds, "0ms"), (seconds, "1k"), (decibels, "-3")])
def test_bad_amounts(read, text):
    with pytest.raises(argparse.ArgumentTypeError):
        read(text)


def test_what_is_said_can_be_read():
    for rate in (1, 999, 150e3, 1.25e6, 300.5e3):
        assert bit_rate(said(rate)) == rate


# The command line

@pytest.fixture
def source(tmp_path):
    from conftest import write_frames
    return write_frames(tmp_path / "clip", seeded_video(4, 48, 64, 1))


@pytest.fixture
def run(hytip, weights, source, tmp_path):
    """Encode; the status, what was said, and what was complained about."""
    def command(*flags, output="x.hyt", rate=("--frame_rate", 25)):
        return hytip("encode", source, tmp_path / output, *TINY_FLAGS, "--weights", weights, "--device", "cpu",
                     "--threads", 1, "--gop", 2, "--rate_gop_size", 1, *rate, *flags)
    return command


def packets_of(stream: bytes) -> Iterator[Packet]:
    """The packets of a whole stream."""
    reader = StreamReader(io.BytesIO(stream))
    while isinstance(packet := reader.next_packet(lambda intra: (0, 1 << 20)), Packet):
        yield packet


def made(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"clip"}


def test_two_passes_by_flags(run, tmp_path):
    assert run("--QP", 40)[0] == 0
    target = round(1.002 * (tmp_path / "x.hyt").stat().st_size)
    status, out, err = run("--target_bitrate", 8 * target * 25 / 4, "--verify")
    size = (tmp_path / "x.hyt").stat().st_size
    assert (status, err) == (0, "") and 0.995 * target <= size <= target and "verified" in out
    assert f" kbit/s ({100 * (size / target - 1):+.2f} %), passes of analysis: " in out
    status, out, err = run("--target_size", "1MB", "--frames", 1)
    assert status == 0 and "warning: --target_size 1,000,000 bytes: the nearest that this model makes" in err
    with (tmp_path / "x.hyt").open("rb") as file:
        assert StreamReader(file).header.qp == RATES - 1
    assert made(tmp_path) == {"x.hyt"}


def test_a_quality_by_flags(hytip, source, tmp_path):
    """With weights whose quality rises with the QP."""
    def run(target):
        return hytip("encode", source, tmp_path / "x.hyt", "--model", "small", "--device", "cpu", "--threads", 1,
                     "--frames", 1, "--target_psnr", target)
    status, out, err = run("99dB")
    reached = re.fullmatch(r"HyTIP: error: --target_psnr 99.000 dB is above what the highest QP makes of clip; this "
                           r"model reaches ([0-9.]+) dB to ([0-9.]+) dB \(QP 0 to 63\)\n", err)
    low, high = map(float, reached.groups())
    assert (status, out) == (2, "") and low < high and made(tmp_path) == set()
    status, out, err = run((low + high) / 2)
    got = float(re.search(r"; ([0-9.]+) dB of ", out)[1])
    assert status == 0 and (low + high) / 2 <= got < high


def test_one_pass_and_a_ladder_by_flags(run, tmp_path):
    """Each of a ladder's streams is that of one pass alone; a plot lies beside each."""
    status, out, err = run("--bitrate", "46k", "--buffer", "500ms", "--verify", output="one.hyt")
    assert (status, err) == (0, "") and " of 46.00 kbit/s (" in out and "full, 0 underflows" in out
    status, out, err = run("--ladder", "46k,52k", "--buffer", "500ms", "--visualize")
    assert (status, err) == (0, "") and [line.split("stream in ")[1].split(";")[0] for line in out.splitlines()] == [
        str(tmp_path / f"x_{rate}.hyt") for rate in ("46k", "52k")]
    assert made(tmp_path) == {"one.hyt", "x_46k.hyt", "x_52k.hyt", "x_46k.rate.png", "x_52k.rate.png"}
    low, high = ((tmp_path / f"x_{rate}.hyt").read_bytes() for rate in ("46k", "52k"))
    assert low == (tmp_path / "one.hyt").read_bytes() and len(low) < len(high)


def test_one_pass_is_live(weights, tmp_path):
    """Of a pipe that goes on frames come out; the rest when it ends."""
    words = [sys.executable, str(ROOT / "HyTIP.py"), "encode", "-", "-", *map(str, TINY_FLAGS),
             "--weights", str(weights), "--device", "cpu", "--threads", "1", "--gop", "2", "--rate_gop_size", "1",
             "--bitrate", "60k"]
    noise = np.random.default_rng(0).integers(0, 256, (7, 3 * 64 * 48), dtype=np.uint8)
    pictures = [b"FRAME\n" + bytes(frame) for frame in noise]
    arrived = threading.Event()
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        out = bytearray()

        def read():
            while data := os.read(process.stdout.fileno(), 1 << 16):
                out.extend(data)
                if out.count(SYNC) >= 3:
                    arrived.set()
        reader = threading.Thread(target=read)
        reader.start()
        process.stdin.write(b"YUV4MPEG2 W64 H48 F25:1 Ip A1:1 C444\n" + b"".join(pictures[:5]))
        process.stdin.flush()
        assert arrived.wait(120)                                    # while the encoder waits for more
        process.stdin.write(b"".join(pictures[5:]))
        process.stdin.close()
        reader.join()
    frames = list(packets_of(bytes(out)))
    assert process.returncode == 0 and len(frames) == 7


@pytest.mark.parametrize("flags, words", [
    (("--bitrate", "0"), ["--bitrate", "0 is no bit rate; give more than 0"]),
    (("--bitrate", "-300k"), ["--bitrate", "-300k is no bit rate; give more than 0"]),
    (("--target_size", "-1"), ["--target_size", "-1 is no size; give more than 0"]),
    (("--target_psnr", "high"), ["--target_psnr", "high is no PSNR"]),
    (("--bitrate", "1k"), ["--bitrate 1k is below what QP 0 makes", "reaches", "QP 0 to 63"]),
    (("--target_size", "50"), ["--target_size 50 bytes is below what QP 0 makes of clip", "reaches", "QP 0 to 63"]),
    (("--target_bitrate", "1k"), ["--target_bitrate 1.00 kbit/s is below what QP 0 makes", "kbit/s to", "QP 0 to 63"]),
    (("--bitrate", "60k", "--buffer", "39ms"), ["--buffer of 0.039 s is shorter than a frame", "at least 0.04 s"]),
    (("--buffer", "1s"), ["--buffer belongs to --bitrate or --ladder"]),
    (("--bitrate", "60k", "--target_psnr", "30"), ["--target_psnr and --bitrate", "exclude each other"]),
    (("--ladder", "60k,60000"), ["--ladder", "names a rate twice"]),
])
def test_bad_targets(run, tmp_path, flags, words):
    status, out, err = run(*flags)
    assert (status, out) == (2, "") and err.startswith("HyTIP: error: ") and err.count("\n") == 1, err
    assert all(word in err for word in words), err
    assert made(tmp_path) == set()


def test_rates_need_a_frame_rate_and_several_streams_several_files(run, hytip):
    for flag, value in (("--bitrate", "60k"), ("--target_bitrate", "60k"), ("--ladder", "46k,52k")):
        status, _, err = run(flag, value, rate=())
        assert status == 2 and f"{flag} needs the frame rate, which clip does not tell; give --frame_rate" in err
    status, _, err = hytip("--test", "--bitrate", "60k")
    assert status == 2 and "--bitrate works on one video; give it with --compress --input (encode)" in err


def test_a_plot_shows_each_frame(tmp_path):
    frames = [Sent(n % 4 == 0, 30 + n, 100 * n) for n in range(12)]
    plot_rate(tmp_path / "a.png", "clip", frames, 25, 2e5, 1.0)
    plot_rate(tmp_path / "b.png", "clip", frames, 25)
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("a.png", "b.png"))
    with pytest.raises(InputError, match="cannot be written"):
        plot_rate(tmp_path / "a.png" / "c.png", "clip", frames, 25)


def test_the_end_marker_is_counted():
    codec = tiny_codec()
    analysis = Analysis(codec, clip(1, 64, 64), Rates.of(codec.model, PLAN))
    header, frame, end = codec.encode(clip(1, 64, 64), analysis.scheduled((5,)))
    assert end.data == pack_end(1) and analysis.size((5,)) == sum(len(part.data) for part in (header, frame, end))


# The measurements of docs/rate_control.md

def test_both_measurements_work(tmp_path):
    """With tiny codecs; the figures themselves need the small model's clips."""
    codec, frames = tiny_codec(), clip(4, 64, 64)
    rates = Rates.of(codec.model, PLAN)
    row = bench.two_passes(codec, frames, rates, 1200)
    assert row["bytes"] <= 1200 and row["decodes"] == 4 and row["decodes, cut"] == row["kept"] == 3
    law = OnePass(rates, 55e3, 25)
    row = bench.one_pass(codec, frames, law, [(50e3, 20.0), (60e3, 22.0)])
    assert 20 < row["constant QP"] < 22 and row["difference"] == pytest.approx(row["PSNR"] - row["constant QP"])
    assert row["decodes"] == 4 and row["rate"] > law.average, "with header and end marker"
    text = bench.report("one_pass", [row, {**row, "error %": -row["error %"]}])
    assert f"one_pass: mean absolute error {abs(row['error %']):.2f} %, worst {abs(row['error %']):.2f} %" in text
    with pytest.raises(InputError, match="--size 64 999 is larger than BigBuckBunny"):
        bench.read_clip(ROOT / "demo" / "Demo" / "BigBuckBunny", 1, (64, 999))

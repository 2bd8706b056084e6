"""`--compress` and `--decompress` through the command line, at tiny width."""
import csv
import io
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import HyTIP
from conftest import pipes, write_frames
from helpers import TINY, TINY_FLAGS
from seeded import seeded_video
from util.arithmetic import Arithmetic
from util.cli.streams import MeanPsnr, build_codec
from util.coding.bitstream import SYNC, pack_end
from util.coding.fields import varint
from util.coding.reader import StreamReader
from util.coding.session import Session


@pytest.fixture
def run(hytip, weights):
    """A command that must succeed."""
    def command(*flags):
        status, out, err = hytip(*TINY_FLAGS, "--weights", weights, "--device", "cpu", "--threads", 1, *flags)
        assert (status, err) == (0, ""), err
        return out
    return command


@pytest.fixture
def clip(tmp_path):
    """Six frames, each brighter than the last, so that they are not taken for one another."""
    return write_frames(tmp_path / "clip", seeded_video(6, 37, 53, 1) * torch.linspace(0.3, 1, 6).view(-1, 1, 1, 1))


@pytest.fixture
def data(tmp_path):
    write_frames(tmp_path / "data" / "HEVC-D" / "BQSquare", seeded_video(5, 50, 83, 1))
    write_frames(tmp_path / "data" / "HEVC-D" / "RaceHorses1", seeded_video(5, 33, 70, 2))
    return tmp_path / "data"


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def pixels(path):
    with Image.open(path) as image:
        return np.array(image)


def test_file_round_trip(run, clip, tmp_path):
    out = run("--compress", "--input", clip, "--output", tmp_path / "x.bin", "--QP", 30, "--gop", 4, "--verify")
    size = (tmp_path / "x.bin").stat().st_size
    assert out.startswith(f"6 frames of 53x37, {size:,} bytes, {8 * size / (6 * 53 * 37):.4f} bpp, ")
    assert out.endswith(f" frames/s; stream in {tmp_path / 'x.bin'}, verified\n") and out.count("\n") == 1
    run("--decompress", "--input", tmp_path / "x.bin", "--output", tmp_path / "frames")
    assert {p.name for p in (tmp_path / "frames").iterdir()} == {f"frame_{n}.png" for n in range(1, 7)}
    assert pixels(tmp_path / "frames" / "frame_6.png").shape == (37, 53, 3)
    assert {p.name for p in tmp_path.iterdir()} == {"clip", "frames", "x.bin"}
    errors = [pixels(tmp_path / "frames" / name).astype(float) - pixels(clip / name)
              for name in (f"frame_{n}.png" for n in range(1, 7))]
    quality = np.mean([10 * np.log10(255 ** 2 / np.mean(error ** 2)) for error in errors])
    assert float(re.search(r", PSNR ([\d.]+) dB, ", out)[1]) == pytest.approx(quality, abs=0.02)   # before rounding


def test_what_replaces_a_former_output_says_so(run, hytip, clip, tmp_path):
    words = ", in place of the former one"
    for n in range(2):
        out = run("--compress", "--input", clip, "--output", tmp_path / "x.bin", "--frames", 1)
        assert out.endswith(f"; stream in {tmp_path / 'x.bin'}{words * n}\n")
        out = run("--decompress", "--input", tmp_path / "x.bin", "--output", tmp_path / "frames")
        assert out == f"1 frame of 53x37 in {tmp_path / 'frames'}{words * n}\n"


def test_the_first_frames_of_a_stream(run, hytip, weights, clip, tmp_path):
    run("--compress", "--input", clip, "--output", tmp_path / "x.bin")
    out = run("--decompress", "--input", tmp_path / "x.bin", "--output", tmp_path / "two", "--frames", 2)
    assert out.startswith("2 frames of 53x37") and len(list((tmp_path / "two").iterdir())) == 2
    status, _, err = hytip(*TINY_FLAGS, "--weights", weights, "--device", "cpu", "--threads", 1, "--decompress",
                           "--input", tmp_path / "x.bin", "--output", tmp_path / "all", "--frames", 20)
    assert (status, err) == (0, f"HyTIP: warning: {tmp_path / 'x.bin'} has 6 frames; --frames 20 asks for more\n")
    assert len(list((tmp_path / "all").iterdir())) == 6


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_round_trip(run, clip, tmp_path, precision):
    """The decoder is not told: the stream knows."""
    flags = ("--input", clip, "--output", tmp_path / "x.bin", "--QP", 30, "--frames", 2)
    run("--compress", *flags, "--precision", precision)
    with (tmp_path / "x.bin").open("rb") as file:
        assert StreamReader(file).header.arithmetic == precision
    run("--decompress", "--input", tmp_path / "x.bin", "--output", tmp_path / "frames")
    assert len(list((tmp_path / "frames").iterdir())) == 2


def test_evaluation_in_half_precision(run, data, tmp_path):
    flags = ("--test", "-data", data, "--test_dataset", "HEVC-D", "--test_seqs", "BQSquare", "--test_seq_len", 2)
    for precision in ("float32", "bfloat16"):
        run(*flags, "--save_dir", tmp_path / precision, "--precision", precision)
    exact, half = (rows(tmp_path / precision / "report" / "BQSquare.csv") for precision in ("float32", "bfloat16"))
    for a, b in zip(exact, half, strict=True):
        assert a != b and float(a["PSNR"]) == pytest.approx(float(b["PSNR"]), abs=0.2)
    records = [json.loads((tmp_path / precision / "brief_summary_HEVC-D.json").read_text())
               for precision in ("float32", "bfloat16")]
    assert [record["arithmetic"]["dtype"] for record in records] == ["float32", "bfloat16"]
    assert records[0]["weights"] == records[1]["weights"]


def test_data_set_round_trip(run, data, tmp_path):
    flags = ("-data", data, "--test_dataset", "HEVC-D", "--test_seqs", "BQSquare", "RaceHorses1", "--QP", 21,
             "--iframe_quality", 30, "--save_dir", tmp_path / "out")
    run("--compress", *flags, "--test_seq_len", 4, "--gop", 3, "--PNG_FILE", "--YUV_FILE", "--verify")
    out = tmp_path / "out"
    assert {p.name for p in (out / "bin").iterdir()} == {"BQSquare_BT601.bin", "RaceHorses1_BT601.bin"}
    encoder_frames = [pixels(out / "png" / "BQSquare" / f"frame_{n}.png") for n in range(1, 5)]
    assert (out / "yuv" / "BQSquare_83x50_60_8bit_444.yuv").stat().st_size == 4 * 3 * 83 * 50
    run("--decompress", *flags, "--test_seq_len", 4, "--PNG_FILE")        # the GOP comes from the stream
    for n, expected in enumerate(encoder_frames, start=1):
        assert np.array_equal(pixels(out / "png" / "BQSquare" / f"frame_{n}.png"), expected)
    for name in ("BQSquare", "RaceHorses1"):
        assert (out / "report" / f"{name}_enc.csv").read_bytes() == (out / "report" / f"{name}_dec.csv").read_bytes()
    summary = (out / "brief_summary_HEVC-D_enc.txt").read_text()
    assert summary == (out / "brief_summary_HEVC-D_dec.txt").read_text()
    assert summary.splitlines()[0].split()[-1] == "rate_bin"


def test_reports_count_the_bytes_of_the_file(run, data, tmp_path):
    flags = ("-data", data, "--test_dataset", "HEVC-D", "--test_seqs", "BQSquare", "--QP", 40, "--test_seq_len", 5)
    run("--compress", *flags, "--save_dir", tmp_path / "out")
    run("--test", *flags, "--save_dir", tmp_path / "out")
    encoded, estimated = (rows(tmp_path / "out" / "report" / f"BQSquare{kind}.csv") for kind in ("_enc", ""))
    stream = (tmp_path / "out" / "bin" / "BQSquare_BT601.bin").read_bytes()
    size, area, reader = len(stream), 83 * 50, StreamReader(io.BytesIO(stream))
    packets = [reader.next_packet(lambda intra: (0, 1 << 20)) for _ in encoded]
    counted = [len(p.payload) + len(varint(len(p.payload))) for p in packets]             # with the length field
    assert [float(row["Rate"]) * area / 8 for row in encoded] == pytest.approx(counted)
    header, overhead = len(reader.header.pack()), [len(p.pack(reader.header)) - len(p.payload) for p in packets]
    assert header <= 80 and max(overhead) <= 14, (header, overhead)
    assert size == header + sum(len(p.pack(reader.header)) for p in packets) + len(pack_end(5))
    summary = (tmp_path / "out" / "brief_summary_HEVC-D_enc.txt").read_text().splitlines()[1]
    assert float(summary.split()[-1]) == pytest.approx(8 * size / area / 5, abs=1e-4)
    for actual, estimate in zip(encoded, estimated):
        assert actual["PSNR"] == estimate["PSNR"] and actual["MC-PSNR"] == estimate["MC-PSNR"]
        # Improbable symbols of seeded weights cost up to 30 bits by estimate, less in the tables.
        assert 0.5 < float(actual["Rate"]) / float(estimate["Rate"]) < 1.1
    record = json.loads((tmp_path / "out" / "brief_summary_HEVC-D_enc.json").read_text())
    assert "bytes" in record["conventions"]["bits"]


def test_further_metrics_lie_beside(run, data, tmp_path):
    """As with --test, which measures the same frames."""
    flags = ("-data", data, "--test_dataset", "HEVC-D", "--test_seqs", "BQSquare", "--test_seq_len", 2, "--metrics",
             "PSNR-YUV", "--save_dir", tmp_path / "out")
    for command in ("--compress", "--decompress", "--test"):
        run(command, *flags)
    for folder, metric in (("out", "PSNR"), ("out_PSNR-YUV", "PSNR-YUV")):
        coded, decoded, tested = (rows(tmp_path / folder / "report" / f"BQSquare{kind}.csv")
                                  for kind in ("_enc", "_dec", ""))
        assert coded == decoded and [row[metric] for row in coded] == [row[metric] for row in tested]
        assert (tmp_path / folder / "brief_summary_HEVC-D_dec.txt").is_file()


def test_decoding_needs_no_source(run, data, tmp_path):
    flags = ("--test_dataset", "HEVC-D", "--test_seqs", "BQSquare", "--save_dir", tmp_path / "out")
    run("--compress", *flags, "-data", data, "--test_seq_len", 3)
    run("--decompress", *flags, "-data", tmp_path / "nowhere")
    with_source, without = (rows(tmp_path / "out" / "report" / f"BQSquare{kind}.csv") for kind in ("_enc", "_dec"))
    assert [row["Rate"] for row in without] == [row["Rate"] for row in with_source]
    assert [row["PSNR"] for row in without] == [""] * 3 and without[1]["MC-PSNR"] == ""


def test_crop_and_scene_cuts_travel_in_the_stream(run, tmp_path):
    write_frames(tmp_path / "data" / "MCL-JCV" / "videoSRC25", seeded_video(19, 40, 40, 3))
    flags = ("-data", tmp_path / "data", "--test_dataset", "MCL-JCV", "--test_seqs", "videoSRC25", "--save_dir",
             tmp_path / "out", "--test_seq_len", 19, "--test_crop", "--crop_factor", 32)
    run("--compress", *flags, "--remove_scene_cut")
    run("--decompress", *flags)
    report = rows(tmp_path / "out" / "report" / "videoSRC25_dec.csv")
    assert {n for n, row in enumerate(report) if row["my"] == "0"} == {0, 17}
    assert report == rows(tmp_path / "out" / "report" / "videoSRC25_enc.csv")


def test_a_truncated_stream_yields_the_frames_before_the_cut(run, hytip, weights, clip, tmp_path):
    run("--compress", "--input", clip, "--output", tmp_path / "x.bin")
    data = (tmp_path / "x.bin").read_bytes()
    (tmp_path / "cut.bin").write_bytes(data[:len(data) // 2])
    status, _, err = hytip(*TINY_FLAGS, "--weights", weights, "--device", "cpu", "--threads", 1, "--decompress",
                           "--input", tmp_path / "cut.bin", "--output", tmp_path / "frames")
    count = len(list((tmp_path / "frames").iterdir()))
    assert status == 2 and err.count("\n") == 1 and 0 < count < 6
    assert f"after {count} complete frames" in err


def test_keep_going_names_what_is_lost(hytip, run, weights, clip, tmp_path):
    run("--compress", "--input", clip, "--output", tmp_path / "x.bin", "--gop", 3)
    data = bytearray((tmp_path / "x.bin").read_bytes())
    header = len(StreamReader(io.BytesIO(data)).header.pack())
    second = data.index(SYNC, header + 40)
    data[second + 40] ^= 0xFF
    (tmp_path / "bad.bin").write_bytes(data)
    base = (*TINY_FLAGS, "--weights", weights, "--device", "cpu", "--threads", 1, "--decompress", "--input",
            tmp_path / "bad.bin", "--output", tmp_path / "frames")
    status, _, err = hytip(*base)
    assert status == 2 and err.startswith("HyTIP: error: ")
    status, out, err = hytip(*base, "--keep_going")
    assert "warning" in err and "error" not in err
    assert status == 0 and int(out.split()[0]) < 6


def test_the_model_of_a_stream_is_named_where_another_is_chosen(hytip, weights, clip, tmp_path):
    """Whether that other one has its weights or not."""
    stream = tmp_path / "x.bin"
    status, _, err = hytip("encode", clip, stream, "--model", TINY / "hytip.yml", "--weights", weights, "--frames", 1,
                           "--device", "cpu")
    assert status == 0, err
    status, out, err = hytip("decode", stream, tmp_path / "frames", "--device", "cpu")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "coded with --model hytip.yml" in err and "give --model hytip.yml" in err
    assert not (tmp_path / "frames").exists()


@pytest.mark.parametrize("flags, words", [
    (("--compress", "--input", "CLIP"), ["--output"]),
    (("--decompress", "--input", "CLIP"), ["--output"]),
    (("--compress", "--input", "nowhere", "--output", "x.bin"), ["nowhere"]),
    (("--compress", "--input", "CLIP", "--output", "x.bin", "--QP", 1, 2), ["one --QP"]),
    (("--compress", "--input", "CLIP", "--output", "-", "--verify"), ["--verify", "pipe"]),
    (("--compress", "--input", "CLIP", "--output", "x.bin", "--frames", 0), ["--frames 0"]),
    (("--compress", "--input", "CLIP", "--output", "x.bin", "--metrics", "PSNR-YUV"), ["--metrics", "--test --input"]),
    (("--decompress", "--input", "CLIP", "--output", "frames", "--metrics", "PSNR-YUV"), ["--metrics"]),
    (("--decompress", "--input", "nowhere.bin", "--output", "frames"), ["nowhere.bin", "cannot be read"]),
    (("--decompress", "--input", "CLIP/frame_1.png", "--output", "frames"), ["no HyTIP stream"]),
    (("--decompress", "--input", "CLIP", "--output", "frames"), ["CLIP", "cannot be read"]),
    (("--decompress", "--test_dataset", "HEVC-D", "--save_dir", "out"), ["BQSquare_BT601.bin is missing"]),
])
def test_bad_input(hytip, weights, clip, tmp_path, monkeypatch, flags, words):
    monkeypatch.chdir(tmp_path)
    clip.rename(tmp_path / "CLIP")
    before = sorted(tmp_path.iterdir())
    status, out, err = hytip(*TINY_FLAGS, "--weights", weights, "--device", "cpu", *flags)
    assert (status, out) == (2, ""), err
    assert err.startswith("HyTIP: error: ") and err.count("\n") == 1
    assert all(word in err for word in words), err
    assert sorted(tmp_path.iterdir()) == before


def test_verification_notices_a_decoder_that_differs(hytip, weights, clip, tmp_path, monkeypatch):
    """By a last bit of one value in one frame, which no checksum of the stream tells."""
    decode = Session.decode

    def differing(self, packet):
        decoded = decode(self, packet)
        if packet.number != 2:
            return decoded
        frame = decoded.frame.clone()
        frame[0, 1, 5, 7] = frame[0, 1, 5, 7].nextafter(torch.tensor(2.0))
        return replace(decoded, frame=frame)
    monkeypatch.setattr(Session, "decode", differing)
    (tmp_path / "x.bin").write_bytes(b"what was there")
    status, out, err = hytip(*TINY_FLAGS, "--weights", weights, "--device", "cpu", "--threads", 1, "--compress",
                             "--input", clip, "--output", tmp_path / "x.bin", "--verify")
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert f"--verify: frame 3 of {tmp_path / 'x.bin'} decodes differently; nothing was written" in err
    assert (tmp_path / "x.bin").read_bytes() == b"what was there"
    assert {p.name for p in tmp_path.iterdir()} == {"clip", "x.bin"}


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_are_the_same_when_the_host_works_behind_the_networks(run, hytip, weights, data, clip, tmp_path,
                                                                    monkeypatch):
    """As on a GPU: streams, reports, frames, and how many there are before damage."""
    def everything(folder):
        flags = ("-data", data, "--test_dataset", "HEVC-D", "--test_seqs", "BQSquare", "--save_dir", folder / "set")
        run("--compress", *flags, "--test_seq_len", 3, "--gop", 2, "--PNG_FILE", "--verify")
        line = run("--compress", "--input", clip, "--output", folder / "x.bin", "--frames", 4)
        run("--decompress", "--input", folder / "x.bin", "--output", folder / "frames")
        (folder / "cut.bin").write_bytes((folder / "x.bin").read_bytes()[:-100])
        status, _, err = hytip(*TINY_FLAGS, "--weights", weights, "--device", "cpu", "--threads", 1, "--decompress",
                               "--input", folder / "cut.bin", "--output", folder / "cut")
        assert status == 2
        return {path: data for path, data in contents(folder).items() if path.suffix != ".json"}, \
            err.replace(str(folder), ""), re.search(r"PSNR [\d.]+ dB", line)[0]

    def build(arguments):
        codec = build_codec(arguments)
        codec.behind = 1
        return codec
    plainly = everything(tmp_path / "plainly")
    monkeypatch.setattr("util.cli.streams.build_codec", build)
    assert everything(tmp_path / "behind") == plainly and len(plainly[0]) > 12


@pytest.mark.parametrize("frames", (1, MeanPsnr.HELD, 2 * MeanPsnr.HELD + 3))
def test_the_mean_psnr_holds_few_errors_at_a_time(frames):
    codec = SimpleNamespace(arithmetic=Arithmetic(torch.device("cpu")))
    quality, generator, expected = MeanPsnr(codec), np.random.default_rng(0), []
    for _ in range(frames):
        original, decoded = generator.integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)
        part = SimpleNamespace(frame=torch.from_numpy(decoded)[None] / 255)
        quality.add(part, torch.from_numpy(original))
        expected.append(-10 * np.log10(np.mean((decoded / 255 - original / 255) ** 2)))
        assert len(quality._held) < quality.HELD
    assert quality.frames == frames
    assert quality.value() == pytest.approx(np.mean(expected), abs=1e-4)


def test_a_failed_compression_leaves_nothing(hytip, weights, clip, tmp_path):
    (clip / "frame_5.png").write_bytes(b"no image")
    status, _, err = hytip(*TINY_FLAGS, "--weights", weights, "--device", "cpu", "--compress", "--input", clip,
                           "--output", tmp_path / "x.bin")
    assert status == 2 and "frame_5.png" in err
    assert [p.name for p in tmp_path.iterdir()] == ["clip"]


def test_streams_through_pipes(weights, clip, tmp_path):
    """What goes to standard output is the stream alone (test_cli_video.py has processes of their own)."""
    base = [*map(str, TINY_FLAGS), "--weights", str(weights), "--device", "cpu", "--threads", "1"]
    flags = ["--compress", "--input", str(clip), "--gop", "3", "--output"]
    with pipes(b"") as written:
        assert HyTIP.main([*base, *flags, "-"]) == 0
        stream = written.getvalue()
    assert HyTIP.main([*base, *flags, str(tmp_path / "x.bin")]) == 0
    assert stream == (tmp_path / "x.bin").read_bytes()
    with pipes(stream):
        assert HyTIP.main([*base, "--decompress", "--input", "-", "--output", str(tmp_path / "frames")]) == 0
    assert len(list((tmp_path / "frames").iterdir())) == 6

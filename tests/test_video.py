"""Videos in and out: equal pixels on every path, pipes, bounded memory, and bad input."""
import os
import re
import resource
import subprocess
import sys
import tracemalloc
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from conftest import pipes
from dataloader.open import VideoOptions, open_sink, open_source
from dataloader.source import PngFolder
from dataloader.video_out import picture
from util.color import Color, PixelFormat, rgb_to_yuv, yuv_to_rgb
from util.errors import InputError
from util.video import STANDARDS

ROOT = Path(__file__).parents[1]
CLIP = ROOT / "demo" / "Demo" / "BigBuckBunny"
BT601 = VideoOptions(matrix="BT601", range="limited")


@pytest.fixture(scope="module")
def clip() -> list[torch.Tensor]:
    """Five frames of odd size, 99x71."""
    return [frame[:, 40:111, 60:159] for frame in islice(PngFolder(CLIP), 5)]


def write(path, frames, options):
    with open_sink(path, *frames[0].shape[1:], options) as put:
        for frame in frames:
            put(frame)
    return path


def even(frames):
    return [frame[:, :70, :98] for frame in frames]


@pytest.mark.parametrize("chroma, depth", [("420", 8), ("420", 10), ("422", 10), ("444", 8), ("444", 10)])
@pytest.mark.parametrize("color", [Color("BT601", "limited"), Color("BT709", "full")])
def test_all_paths_give_the_same_pixels(tmp_path, clip, chroma, depth, color):
    """mp4, mkv, y4m, raw and PNG of the same content; mp4 and mkv tell their colours, y4m its range, raw nothing."""
    frames = even(clip)
    options = VideoOptions((98, 70), chroma, depth, color.matrix, color.range)
    pixels = PixelFormat(chroma, depth)
    expected = [torch.from_numpy(yuv_to_rgb(rgb_to_yuv(f.numpy(), pixels, color), pixels, color)) for f in frames]
    none, y4m = VideoOptions(), VideoOptions(matrix=color.matrix)
    told = {"a.mp4": none, "a.mkv": none, "a.y4m": y4m, "a.yuv": options}
    for name, back in told.items():
        source = open_source(write(tmp_path / name, frames, options), back)
        assert (source.height, source.width, source.length, source.color) == (70, 98, 5, color.matrix)
        for _ in range(2):
            for frame, wanted in zip(source, expected, strict=True):
                assert frame.dtype == torch.uint8 and torch.equal(frame, wanted), name
    pngs = open_source(write(tmp_path / "png", expected, VideoOptions()))
    assert all(torch.equal(a, b) for a, b in zip(pngs, expected, strict=True))


@pytest.mark.parametrize("name", ["a.mkv", "a.y4m", "a.yuv"])
@pytest.mark.parametrize("chroma", ["420", "422"])
def test_odd_sizes(tmp_path, clip, name, chroma):
    options = VideoOptions((99, 71), chroma, 8, "BT709", "limited")
    pixels, color = PixelFormat(chroma, 8), Color("BT709", "limited")
    source = open_source(write(tmp_path / name, clip, options), options)
    for frame, original in zip(source, clip, strict=True):
        expected = yuv_to_rgb(rgb_to_yuv(original.numpy(), pixels, color), pixels, color)
        assert torch.equal(frame, torch.from_numpy(expected))


def test_rgb_mkv_keeps_every_pixel(tmp_path, clip):
    for depth in (8, 10):
        source = open_source(write(tmp_path / "a.mkv", clip, VideoOptions(chroma="rgb", depth=depth)))
        assert source.color == "RGB" and all(torch.equal(a, b) for a, b in zip(source, clip, strict=True))


def test_floats_are_written_rounded(tmp_path, clip):
    floats = [frame / 255 + 0.4 / 255 for frame in clip]
    for name in ("png", "a.mkv"):
        source = open_source(write(tmp_path / name, floats, VideoOptions(chroma="rgb")))
        assert all(torch.equal(a, b) for a, b in zip(source, clip, strict=True))


def test_the_rate_is_kept(tmp_path, clip):
    options = VideoOptions(chroma="444", matrix="BT709", range="limited", rate=Fraction(30000, 1001))
    for name in ("a.mp4", "a.mkv", "a.y4m"):
        source = open_source(write(tmp_path / name, clip, options), options)
        assert abs(source.rate - options.rate) < Fraction(1, 100)


def tagged(path: Path, matrix: int, range_: int, audio: bool = False, video: bool = True) -> Path:
    """A small mkv with chosen tags."""
    with av.open(str(path), "w") as container:
        if video:
            stream = container.add_stream("ffv1", rate=25)
            stream.width, stream.height, stream.pix_fmt = 16, 8, "yuv420p"
            stream.codec_context.colorspace, stream.codec_context.color_range = matrix, range_
        if audio:
            sound = container.add_stream("pcm_s16le", rate=8000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            frame.sample_rate = 8000
            container.mux(sound.encode(frame))
        if video:
            planes = [np.full((8, 16), 100, np.uint8), *[np.full((4, 8), 90, np.uint8)] * 2]
            container.mux(stream.encode(picture(planes, PixelFormat("420", 8), "yuv420p")))
            container.mux(stream.encode())
    return path


def test_tags_are_heeded_and_flags_go_before_them(tmp_path):
    said = []
    path = tagged(tmp_path / "a.mkv", STANDARDS["BT709"], 1)
    plain, forced = open_source(path, say=said.append), open_source(path, BT601, say=said.append)
    assert plain.color == "BT709" and not torch.equal(next(iter(plain)), next(iter(forced)))
    assert said == ["a is tagged BT709, but is read as BT601, as the flag says"]


def test_loss_of_audio_is_said(tmp_path, capsys):
    open_source(tagged(tmp_path / "a.mkv", 1, 1, audio=True))
    assert "note: a has audio, which is dropped (--copy_audio" in capsys.readouterr().err


def test_bad_files(tmp_path, clip):
    with pytest.raises(InputError, match="does not exist"):
        open_source(tmp_path / "none.mp4")
    with pytest.raises(InputError, match="holds no video, only audio"):
        open_source(tagged(tmp_path / "audio.mkv", 1, 1, audio=True, video=False))
    (tmp_path / "text.mp4").write_text("this is no video at all\n" * 100)
    (tmp_path / "empty.mkv").write_bytes(b"")
    for name in ("text.mp4", "empty.mkv"):
        with pytest.raises(InputError, match=f"video {name} cannot be read"):
            open_source(tmp_path / name)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.y4m"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
def test_cut_off_videos_are_told(tmp_path, clip, name, share):
    options = VideoOptions(chroma="420", matrix="BT709", range="limited")
    whole = write(tmp_path / name, even(clip), options).read_bytes()
    (tmp_path / name).write_bytes(whole[:int(len(whole) * share)])
    with pytest.raises(InputError, match="cannot be read|cut off|corrupt"):
        list(open_source(tmp_path / name, options))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_corrupt_videos_are_told(tmp_path, clip, name):
    """FFV1 has checksums; in H.264 a long run of changed bytes breaks the syntax."""
    path = write(tmp_path / name, even(clip), VideoOptions(chroma="420", matrix="BT709", range="limited"))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle:middle + 2000] = np.random.default_rng(0).integers(0, 256, 2000, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    with pytest.raises(InputError, match="cannot be read|corrupt"):
        list(open_source(path))


def test_bad_outputs(tmp_path, clip):
    for name, options, words in (
            ("a.mov", BT601, "unknown ending"),
            ("a.mp4", VideoOptions(chroma="420", matrix="BT709", range="full"), "99x71 in 420: a side is odd"),
            ("a.mp4", VideoOptions(chroma="rgb"), "unknown to libx264"),
            ("a.y4m", VideoOptions(chroma="rgb"), "y4m cannot hold RGB"),
            ("a.yuv", VideoOptions(chroma="400"), "without colour"),
            ("a.mkv", VideoOptions(depth=13, matrix="BT709", range="full"), "unknown to ffv1")):
        with pytest.raises(InputError, match=words):
            write(tmp_path / name, clip, options)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="holds more than frames"):
        write(tmp_path / "mine", clip, VideoOptions())
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "x"


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.y4m", "a.yuv", "png"])
def test_a_failure_leaves_nothing_and_spares_what_was_there(tmp_path, clip, name):
    options = VideoOptions(chroma="444", matrix="BT709", range="limited", size=(99, 71))
    write(tmp_path / name, clip[:2], options)
    before = [frame.clone() for frame in open_source(tmp_path / name, options)]
    with pytest.raises(ZeroDivisionError), open_sink(tmp_path / name, 71, 99, options) as put:
        put(clip[0])
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert all(torch.equal(a, b) for a, b in zip(open_source(tmp_path / name, options), before, strict=True))


@pytest.fixture
def full_disk():
    """A file cannot grow beyond 60000 bytes: EFBIG, as ENOSPC would be."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.y4m", "a.yuv", "png"])
def test_a_full_disk(tmp_path, full_disk, name):
    options = VideoOptions(chroma="444", matrix="BT709", range="limited")
    words = re.escape(f"{tmp_path / name} cannot be written (File too large); choose another place")
    with pytest.raises(InputError, match=f"^{words}$"), open_sink(tmp_path / name, 256, 256, options) as put:
        for _ in range(10):
            put(torch.randint(0, 256, (3, 256, 256), dtype=torch.uint8))
    assert list(tmp_path.iterdir()) == []


def copy_through_pipes() -> None:
    """Standard input to standard output."""
    options = VideoOptions(matrix="BT709", range="limited", chroma="420")
    source = open_source("-", options)
    assert source.length is None
    with open_sink("-", source.height, source.width, options, source.facts) as put:
        for frame in source:
            put(frame)


def test_pipes(tmp_path, clip):
    """Video on standard input, y4m on standard output, as `ffmpeg ... | program | ffmpeg -i - ...` would do."""
    options = VideoOptions(chroma="420", matrix="BT709", range="limited")
    for name in ("a.y4m", "a.mkv"):
        path = write(tmp_path / name, clip, options)
        with pipes(path.read_bytes()) as written:
            copy_through_pipes()
            back = written.getvalue()
        with open_sink(tmp_path / "twice.y4m", 71, 99, options) as put:
            for frame in open_source(path, options):
                put(frame)
        assert back == (tmp_path / "twice.y4m").read_bytes()


def test_broken_pipes(tmp_path, clip):
    data = write(tmp_path / "a.y4m", clip, VideoOptions(chroma="420", matrix="BT709", range="limited")).read_bytes()
    with pipes(data[:-100]), pytest.raises(InputError, match="video stdin is cut off or corrupt after 4 frames"):
        copy_through_pipes()
    code = ("import sys; from test_video import InputError, copy_through_pipes\n"
            "try: copy_through_pipes()\n"
            "except InputError as error: sys.exit(f'InputError: {error}')")
    with open("/dev/full", "wb") as full:
        run = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
                             input=data, stdout=full, stderr=subprocess.PIPE, timeout=120)
    assert b"InputError: standard output cannot be written (No space left on device)" in run.stderr
    assert run.returncode == 1
    assert b"Exception ignored" not in run.stderr


def test_memory_does_not_grow_with_length(tmp_path):
    """100 frames of 416x240: reading and writing keep a few frames, not 100 (30 MB)."""
    options = VideoOptions(chroma="420", matrix="BT709", range="limited")
    frames = list(islice(PngFolder(CLIP), 3))
    with open_sink(tmp_path / "a.mkv", 240, 416, options) as put:
        for n in range(100):
            put(frames[n % 3])
    tracemalloc.start()
    with open_sink(tmp_path / "b.y4m", 240, 416, options) as put:
        count = 0
        for frame in open_source(tmp_path / "a.mkv"):
            put(frame)
            count += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 100 and peak < 12e6

"""Odd videos through the command line and back: each is coded, and keeps what it is, or is refused in one line."""
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from stream_helpers import tiny_codec
from video_helpers import facts, make_video, sound_packets

from conftest import write_frames
from seeded import seeded_video

H264 = {"encoder": "libx264", "frames": 2}
STAMPS = [1500, 4500, 10500]


@dataclass(frozen=True)
class Odd:
    """Attributes:
        name: of the file.
        make: writes it.
        said: what the remarks must tell; nothing else may be said.
        refused: what the one line of the refusal must tell; None where it is coded.
        changes: to the facts of the source in those of the decoded video.
        loose: facts that may differ.
        back: name of the decoded video.
    """
    name: str
    make: Callable[[Path], object]
    said: tuple[str, ...] = ()
    refused: tuple[str, ...] | None = None
    changes: dict = field(default_factory=dict)
    loose: tuple[str, ...] = ()
    back: str = "back.mkv"


def video(**options) -> Callable[[Path], object]:
    return lambda path: make_video(path, **{"frames": 2, **options})


def cut_short(path: Path) -> None:
    data = make_video(path, **H264).read_bytes()
    path.write_bytes(data[:len(data) * 2 // 3])


def audio_alone(path: Path) -> None:
    with av.open(str(path), "w") as container:
        tone = container.add_stream("pcm_s16le", rate=8000)
        chunk = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        chunk.sample_rate = 8000
        container.mux(tone.encode(chunk))


def palette(path: Path) -> None:
    indices = np.random.default_rng(2).integers(0, 4, (24, 32), dtype=np.uint8)
    image = Image.fromarray(indices, mode="P")
    image.putpalette(bytes(range(12)))
    image.save(path)


def with_a_gap(path: Path) -> None:
    write_frames(path, seeded_video(3, 24, 32, 1))
    (path / "frame_2.png").unlink()


ODD = [
    Odd("turned.mp4", video(**H264, turned=90), changes={"size": (24, 32)}, back="back.mp4"),
    Odd("varying.mp4", video(**{**H264, "frames": 3}, time_base=Fraction(1, 90000), stamps=STAMPS), back="back.mp4",
        loose=("rate",)),                                                   # a mean, which the last duration changes
    Odd("late.mkv", video(**{**H264, "frames": 3}, time_base=Fraction(1, 1000), stamps=[700, 740, 780])),
    Odd("alpha.mkv", video(pixels="yuva420p"), said=("alpha",)),
    Odd("deep.mkv", video(pixels="yuv422p10le")),
    Odd("gray.mkv", video(pixels="gray")),
    Odd("rgb.mkv", video(pixels="bgr0", tags=(0, 1, 13, 2)), said=("was RGB", "is made BT601"),
        changes={"tags": (6, 6, 6, 1)}),
    Odd("interlaced.mkv", video(**H264, height=32, interlaced=True), said=("interlaced",)),
    Odd("single.mp4", video(**{**H264, "frames": 1})),
    Odd("thin.mkv", video(width=17, height=3)),
    Odd("point.mkv", video(width=1, height=1)),
    Odd("untagged.mp4", video(**H264, tags=(2, 2, 2, 0)), said=("no colour matrix and no range tag", "BT601"),
        changes={"tags": (6, 2, 2, 1)}),
    Odd("full.mkv", video(tags=(6, 5, 6, 2))),
    Odd("oblong.mp4", video(**H264, aspect=Fraction(16, 15)), back="back.mp4"),
    Odd("two.mkv", video(videos=2), said=("2 video streams",)),
    Odd("loud.mp4", video(**H264, sound="aac"), said=("audio",)),
    Odd("jpeg.avi", video(encoder="mjpeg", pixels="yuvj420p", tags=(5, 2, 2, 2))),
    Odd("a name with spaces, 100 % & ünïcode.mkv", video()),
    Odd("-dash.mkv", video()),
    Odd("picture.png", palette, said=("was RGB", "is made BT601"), changes={"tags": (6, 6, 6, 1)}),
    Odd("wide.mkv", video(pixels="yuv420p10le", tags=(9, 9, 14, 1)), refused=("BT.2020", "ffmpeg -i")),
    Odd("hdr.mkv", video(pixels="yuv420p10le", tags=(9, 9, 16, 1)), refused=("HDR (PQ)", "tonemap")),
    Odd("yuv411.avi", video(encoder="rawvideo", pixels="yuv411p"), refused=("yuv411p", "convert it")),
    Odd("sound.mkv", audio_alone, refused=("holds no video, only audio",)),
    Odd("cut.mp4", cut_short, refused=("cannot be read",)),
    Odd("text.mp4", lambda path: path.write_text("no video at all\n" * 100), refused=("cannot be read",)),
    Odd("empty.mkv", lambda path: path.write_bytes(b""), refused=("cannot be read",)),
    Odd("none.mp4", lambda path: None, refused=("does not exist",)),
    Odd("folder", Path.mkdir, refused=("frame_1.png",)),
    Odd("gap", with_a_gap, refused=("frame_2.png",)),
    Odd("nameless.yuv", lambda path: path.write_bytes(bytes(1152)), refused=("size", "--video_size")),
    Odd("short_32x24_25.yuv", lambda path: path.write_bytes(bytes(1000)), refused=("short_32x24_25.yuv",)),
]


@pytest.fixture
def run(hytip, monkeypatch):
    """The command line with one codec for all."""
    monkeypatch.setattr("util.cli.streams.build_codec", lambda arguments: tiny_codec())
    return lambda *words: hytip(*words, "--device", "cpu", "--threads", 1)


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.name)
def test_odd_inputs(run, tmp_path, monkeypatch, odd):
    monkeypatch.chdir(tmp_path)
    path, stream, back = Path(odd.name), Path("a.hyt"), Path(odd.back)
    odd.make(path)
    before = sorted(tmp_path.iterdir())
    status, out, err = run("--compress", f"--input=./{path}", "--output", stream)
    if odd.refused is not None:
        assert (status, out, err.count("\n")) == (2, "", 1) and err.startswith("HyTIP: error: "), err
        assert all(word in err for word in odd.refused), err
        assert sorted(tmp_path.iterdir()) == before
        return
    assert status == 0 and out.count("\n") == 1, err
    status, _, more = run("--decompress", "--input", stream, "--output", back)
    assert status == 0 and all(line.startswith("HyTIP: warning: ") for line in (err + more).splitlines()), err + more
    assert all(word in err + more for word in odd.said) and bool(err + more) == bool(odd.said), err + more
    found, expected = facts(back), {**facts(path), **odd.changes}
    for name in odd.loose:
        del found[name], expected[name]
    assert found == expected


@pytest.mark.parametrize("suffix, sound", [(".mp4", "aac"), (".mkv", "pcm_s16le")])
def test_a_film_comes_back_as_it_was(run, tmp_path, suffix, sound):
    """Frames, rate, times and tags are the source's, and its sound bit for bit."""
    source, stream, back = tmp_path / f"in{suffix}", tmp_path / "a.hyt", tmp_path / f"back{suffix}"
    make_video(source, encoder="libx264", rate=Fraction(30000, 1001), tags=(6, 5, 6, 1), sound=sound)
    assert run("encode", source, stream)[0] == 0
    status, out, err = run("decode", stream, back, "--copy_audio", source)
    assert (status, out, err) == (0, f"4 frames of 32x24 in {back}\n", "")
    assert facts(back) == facts(source) and sound_packets(back) == sound_packets(source) != []
    before, half = sound_packets(back), tmp_path / f"half{suffix}"
    assert run("decode", stream, half, "--copy_audio", source, "--frames", 2)[0] == 0
    assert facts(half)["times"] == facts(source)["times"][:2]
    assert sound_packets(half) == [packet for packet in before if packet[1] < 2 * Fraction(1001, 30000)]

"""Any file works: what a video is survives its way through, odd ones are coded right or refused in one line."""
import re
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from video_helpers import facts, make_video, noise, sound_packets

from dataloader.open import FirstFrames, VideoOptions, open_sink, open_source
from dataloader.picture import frame_planes, pixel_format, planar_name
from util.color import Color, yuv_to_rgb
from util.errors import InputError
from util.video import VideoFacts


def read(path: Path, **options) -> tuple[list[torch.Tensor], list[str], VideoFacts]:
    """Frames, remarks and facts."""
    said: list[str] = []
    source = open_source(path, VideoOptions(**options), said.append)
    frames = list(source)
    assert all(frame.shape == (3, source.height, source.width) for frame in frames)
    assert source.length == len(frames)
    return frames, said, source.facts


def stored(path: Path, color: Color) -> list[np.ndarray]:
    """The frames by another way: FFmpeg's planes, this project's arithmetic."""
    with av.open(str(path)) as container:
        return [yuv_to_rgb(frame_planes(frame, pixel_format(planar_name(frame.format, ""))),
                           pixel_format(planar_name(frame.format, "")), color) for frame in container.decode(video=0)]


# Colour

@pytest.mark.parametrize("height, matrix", [(718, "BT601"), (720, "BT709")])
def test_untagged_colour_is_taken_as_players_take_it_and_said_in_one_line(tmp_path, height, matrix):
    path = make_video(tmp_path / "a.mkv", width=16, height=height, frames=1, tags=(2, 2, 2, 0))
    frames, said, told = read(path)
    assert len(said) == 1 and said[0].startswith(f"a has no colour matrix and no range tag; it is taken for {matrix}, "
                                                 "limited range, as players do")
    assert (told.color.name, told.color.range, told.color.assumed) == (matrix, "limited", True)
    assert told.describe() == {"color": matrix, "range": "limited", "assumed": True, "rate": "25"}
    assert np.array_equal(frames[0], stored(path, Color(matrix, "limited"))[0])


def test_flags_and_tags_leave_nothing_to_assume(tmp_path):
    path = make_video(tmp_path / "a.mkv", tags=(2, 2, 2, 0))
    _, said, told = read(path, matrix="BT709", range="full")
    assert said == [] and not told.color.assumed
    _, said, told = read(make_video(tmp_path / "b.mkv", tags=(5, 5, 6, 2)))
    assert said == [] and (told.color.matrix, told.color.primaries, told.color.transfer) == (5, 5, 6)
    _, said, told = read(make_video(tmp_path / "c.mkv", tags=(1, 2, 2, 0)))
    assert len(said) == 1 and "c has no colour range tag; it is taken for BT709, limited" in said[0]
    frame = noise(np.random.default_rng(0), 16, 8, "yuv420p")
    (tmp_path / "d_16x8_25.yuv").write_bytes(b"".join(bytes(plane) for plane in frame.planes)[:16 * 8 * 3 // 2])
    _, said, told = read(tmp_path / "d_16x8_25.yuv")
    assert len(said) == 1 and told.color.assumed and told.color.name == "BT601"


@pytest.mark.parametrize("tags, word", [
    ((9, 9, 14, 1), "BT.2020"), ((1, 9, 1, 1), "BT.2020"), ((9, 9, 16, 1), r"BT.2020, HDR \(PQ\)"),
    ((9, 9, 18, 1), r"HDR \(HLG\)"), ((10, 9, 15, 1), "BT.2020"), ((1, 1, 18, 1), "HLG")])
def test_wide_and_hdr_colour_is_refused_with_a_cure(tmp_path, tags, word):
    path = make_video(tmp_path / "a.mkv", pixels="yuv420p10le", tags=tags)
    with pytest.raises(InputError, match=f"^video a is .*{word}.* ffmpeg -i .*tonemap.*--color_matrix"):
        open_source(path)
    frames, _, told = read(path, matrix="BT709")                   # whoever knows that the tags are wrong
    assert len(frames) == 4 and told.color.matrix == 1


def test_other_matrices_are_refused(tmp_path):
    with pytest.raises(InputError, match="colour matrix tag 7.*only BT601 and BT709.*--color_matrix"):
        open_source(make_video(tmp_path / "a.mkv", tags=(7, 1, 1, 1)))


# Layouts of samples

@pytest.mark.parametrize("encoder, pixels, depth", [
    ("ffv1", "yuv422p10le", 10), ("ffv1", "yuva420p", 8), ("ffv1", "yuva444p10le", 10), ("ffv1", "bgra", 8),
    ("rawvideo", "nv12", 8), ("rawvideo", "uyvy422", 8), ("rawvideo", "rgb48le", 16), ("ffv1", "gbrap12le", 12),
    ("ffv1", "gray10le", 10), ("rawvideo", "yuv420p10be", 10), ("png", "rgba", 8),
    ("rawvideo", "yuvj422p", 8)])
def test_every_layout_of_samples(tmp_path, encoder, pixels, depth):
    """The pixels are those of the same samples in planes of their own."""
    rng = np.random.default_rng(1)
    path = tmp_path / "a.nut"
    original = av.VideoFrame(32, 24, planar_name(av.VideoFormat(pixels, 32, 24), ""))
    for source, plane in zip(noise(rng, 32, 24, original.format.name).planes, original.planes, strict=True):
        plane.update(bytes(source))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 24, pixels
        stream.codec_context.colorspace, stream.codec_context.color_range = 0 if original.format.is_rgb else 1, 1
        packed = original if original.format.name == pixels else original.reformat(format=pixels, threads=1)
        container.mux(stream.encode(packed))
        container.mux(stream.encode())
    frames, said, told = read(path, matrix=None if original.format.is_rgb else "BT709", range="limited")
    plain = pixel_format(original.format.name)
    assert plain.depth == depth
    assert np.array_equal(frames[0], yuv_to_rgb(frame_planes(original, plain), plain, told.color.color))
    assert any("alpha" in line for line in said) == ("a" in pixels.replace("gray", ""))


@pytest.mark.parametrize("pixels", ["p010le", "y210le", "x2rgb10le", "vuya", "yuyv422", "nv21", "0rgb"])
@pytest.mark.parametrize("range_", [1, 2])
def test_rearranging_changes_no_sample(pixels, range_):
    plain = noise(np.random.default_rng(1), 34, 18, planar_name(av.VideoFormat(pixels, 34, 18), ""))
    plain.color_range = range_
    packed = plain.reformat(format=pixels, src_color_range=range_, dst_color_range=range_, threads=1)
    packed.color_range = range_
    form = pixel_format(plain.format.name)
    assert all(map(np.array_equal, frame_planes(packed, form), frame_planes(plain, form)))


def test_a_palette(tmp_path):
    """Also: one picture is a video of one frame."""
    indices = np.random.default_rng(2).integers(0, 4, (24, 32), dtype=np.uint8)
    colors = np.array([[255, 7, 0], [0, 255, 0], [0, 9, 255], [255, 255, 255]], np.uint8)
    image = Image.fromarray(indices, mode="P")
    image.putpalette(colors.tobytes())
    image.save(tmp_path / "a.png")
    frames, _, told = read(tmp_path / "a.png")
    assert np.array_equal(frames[0], colors[indices].transpose(2, 0, 1)) and told.color.name == "RGB"


@pytest.mark.parametrize("pixels", ["yuv410p", "yuv411p", "monob", "gbrpf32le", "xyz12le"])
def test_layouts_that_cannot_be_read_are_named(pixels):
    with pytest.raises(InputError, match=f"a.avi has pixel format {pixels}; convert it, .*ffmpeg -i a.avi"):
        planar_name(av.VideoFormat(pixels, 16, 16), "a.avi")


# Turned, interlaced, many streams

@pytest.mark.parametrize("turned, turn", [(90, 1), (180, 2), (-90, 3), (0, 0)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_turned_videos_come_upright(tmp_path, turned, turn, suffix):
    """A display rotation of 90 turns the picture counterclockwise, as numpy.rot90 does."""
    tags = (1, 1, 1, 1)
    path = make_video(tmp_path / f"a{suffix}", encoder="libx264", turned=turned, tags=tags, aspect=Fraction(4, 3))
    frames, said, told = read(path)
    expected = [np.rot90(frame, turn, (1, 2)) for frame in stored(path, Color("BT709", "limited"))]
    assert all(np.array_equal(a, b) for a, b in zip(frames, expected, strict=True)) and said == []
    assert told.pixel_aspect == (Fraction(3, 4) if turn % 2 else Fraction(4, 3))


def test_mirrored_and_slanted_videos(tmp_path):
    path = make_video(tmp_path / "a.mp4", encoder="libx264")
    plain = stored(path, Color("BT709", "limited"))[0]

    def displayed(*matrix: int) -> Path:
        with av.open(str(path)) as source, av.open(str(tmp_path / "b.mp4"), "w") as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            stream.set_display_matrix(matrix)
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    target.mux(packet)
        return tmp_path / "b.mp4"
    one = 1 << 16
    frames, _, _ = read(displayed(-one, 0, 0, 0, one, 0, 32 * one, 0, 1 << 30))
    assert np.array_equal(frames[0], plain[:, :, ::-1])
    frames, _, _ = read(displayed(0, one, 0, one, 0, 0, 0, 0, 1 << 30))
    assert np.array_equal(frames[0], plain.transpose(0, 2, 1))
    with pytest.raises(InputError, match="turned by .* degrees, and only multiples of 90"):
        open_source(displayed(46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30))


def test_interlaced_videos_are_coded_as_stored_and_it_is_said(tmp_path):
    path = make_video(tmp_path / "a.mkv", encoder="libx264", width=32, height=32, interlaced=True)
    frames, said, _ = read(path)
    assert len(said) == 1 and "a is interlaced; both fields" in said[0]
    assert np.array_equal(frames[0], stored(path, Color("BT709", "limited"))[0])


def test_the_first_of_several_videos_is_used(tmp_path):
    path = make_video(tmp_path / "a.mkv", videos=2)
    frames, said, _ = read(path)
    assert np.array_equal(frames[0], stored(path, Color("BT709", "limited"))[0])
    assert said == ["a has 2 video streams; the first is used"]


@pytest.mark.parametrize("width, height, frames", [(17, 3, 2), (1, 1, 1), (2, 2, 1)])
def test_tiny_videos(tmp_path, width, height, frames):
    path = make_video(tmp_path / "a.mkv", width=width, height=height, frames=frames)
    got, said, _ = read(path)
    assert said == [] and got[0].shape == (3, height, width)
    assert np.array_equal(got[-1], stored(path, Color("BT709", "limited"))[-1])


# Not videos

def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Name -> file and what is said of it."""
    whole = make_video(folder / "whole.mp4", encoder="libx264").read_bytes()
    text, cut, empty = folder / "text.mp4", folder / "cut.mp4", folder / "empty.mkv"
    text.write_text("this is no video at all\n" * 100)
    cut.write_bytes(whole[:len(whole) * 2 // 3])
    empty.write_bytes(b"")
    with av.open(str(folder / "sound.mkv"), "w") as container:
        tone = container.add_stream("pcm_s16le", rate=8000)
        chunk = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        chunk.sample_rate = 8000
        container.mux(tone.encode(chunk))
    return {"text": (text, "video text.mp4 cannot be read"), "cut": (cut, "video cut.mp4 cannot be read"),
            "empty": (empty, "video empty.mkv cannot be read"),
            "sound": (folder / "sound.mkv", "sound.mkv holds no video, only audio"),
            "none": (folder / "none.mp4", "none.mp4 does not exist")}


@pytest.mark.parametrize("kind", ["text", "cut", "empty", "sound", "none"])
def test_what_is_no_video_is_refused(tmp_path, kind):
    path, words = bad_files(tmp_path)[kind]
    with pytest.raises(InputError, match=f"^(video )?.*{re.escape(words)}"):
        open_source(path)


# What goes out

def through(path: Path, output: Path, sound: Path | None = None, **options) -> list[str]:
    """Source to sink; the remarks."""
    said: list[str] = []
    source = open_source(path, VideoOptions(), said.append)
    with open_sink(output, source.height, source.width, VideoOptions(**options), source.facts, sound=sound,
                   say=said.append) as write:
        for frame in source.timed():
            write(*frame)
    return said


STAMPS = [1500, 4500, 10500, 11500, 30000]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("tags", [(1, 1, 1, 1), (6, 5, 6, 2), (5, 2, 2, 1)])
def test_rate_times_tags_and_shape_of_pixels_are_kept(tmp_path, suffix, tags):
    path = make_video(tmp_path / f"a{suffix}", encoder="libx264", rate=Fraction(30000, 1001), tags=tags,
                      aspect=Fraction(16, 15) if suffix == ".mp4" else None)
    assert through(path, tmp_path / f"b{suffix}") == []
    assert facts(tmp_path / f"b{suffix}") == facts(path)
    assert facts(path)["tags"] == tags and facts(path)["aspect"] == (Fraction(16, 15) if suffix == ".mp4" else None)


def test_pixels_that_become_square_are_told(tmp_path):
    path = make_video(tmp_path / "a.mp4", encoder="libx264", aspect=Fraction(16, 15))
    said = through(path, tmp_path / "b.mkv")
    assert len(said) == 1 and "b.mkv will be square, those of the source are 16:15; mp4 keeps their shape" in said[0]


@pytest.mark.parametrize("chroma", ["420", "444"])
def test_tiny_videos_go_out(tmp_path, chroma):
    path = make_video(tmp_path / "a.mkv", width=17, height=3)
    through(path, tmp_path / "b.mkv", chroma=chroma)
    assert facts(tmp_path / "b.mkv") == facts(path)


@pytest.mark.parametrize("suffix, base", [(".mp4", 90000), (".mkv", 1000)])
def test_varying_rates_are_kept(tmp_path, suffix, base):
    stamps = STAMPS if base == 90000 else [stamp // 90 for stamp in STAMPS]
    path = make_video(tmp_path / f"a{suffix}", encoder="libx264", time_base=Fraction(1, base), stamps=stamps, frames=5)
    assert len({b - a for a, b in pairwise(facts(path)["times"])}) == 4
    assert through(path, tmp_path / f"b{suffix}") == []
    assert facts(tmp_path / f"b{suffix}")["times"] == facts(path)["times"]
    said = through(path, tmp_path / "b.y4m")
    assert len(said) == 1 and "varies, which y4m cannot tell" in said[0]


def test_untagged_colour_is_tagged_as_it_was_taken(tmp_path):
    path = make_video(tmp_path / "a.mkv", tags=(2, 2, 2, 0))
    through(path, tmp_path / "b.mkv")
    assert facts(tmp_path / "b.mkv")["tags"] == (6, 2, 2, 1)


def test_frames_without_colour_get_the_usual_one(tmp_path):
    said: list[str] = []
    with open_sink(tmp_path / "a.mp4", 16, 16, say=said.append) as write:
        write(torch.zeros(3, 16, 16, dtype=torch.uint8))
    assert len(said) == 1 and "a.mp4 is made BT601, limited range" in said[0]
    assert facts(tmp_path / "a.mp4")["tags"] == (6, 6, 6, 1)


# Sound

@pytest.mark.parametrize("suffix, sound", [(".mp4", "aac"), (".mkv", "aac"), (".mkv", "pcm_s16le")])
def test_sound_is_copied_bit_for_bit(tmp_path, suffix, sound):
    path = make_video(tmp_path / f"a{suffix}", encoder="libx264", sound=sound)
    said = through(path, tmp_path / f"b{suffix}", sound=path)
    assert sound_packets(tmp_path / f"b{suffix}") == sound_packets(path) != []
    assert facts(tmp_path / f"b{suffix}") == facts(path)
    assert len(said) == 1 and "audio" in said[0] and "--copy_audio" in said[0]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_of_fewer_frames_the_sound_of_their_time_is_copied(tmp_path, suffix):
    """20 of 40 frames of 0.1 s, beside audio of 4 s in packets of 0.128 s: what begins before 2 s."""
    path = make_video(tmp_path / f"a{suffix}", encoder="libx264", rate=Fraction(10), frames=40, sound="aac", tone=4)
    for frames, seconds in ((40, 99), (20, 2)):
        source = FirstFrames(open_source(path, say=lambda line: None), frames)
        with open_sink(tmp_path / f"b{suffix}", 24, 32, facts=source.facts, sound=path) as write:
            for frame in source.timed():
                write(*frame)
        expected = [packet for packet in sound_packets(path) if packet[1] < seconds]
        assert sound_packets(tmp_path / f"b{suffix}") == expected
        assert len(facts(tmp_path / f"b{suffix}")["times"]) == frames
    assert 10 < len(expected) < len(sound_packets(path))


def test_sound_that_cannot_be_copied(tmp_path):
    path = make_video(tmp_path / "a.mkv", encoder="libx264", sound="pcm_u8")
    silent = make_video(tmp_path / "silent.mkv")
    for output, sound, words in (("b.mp4", path, ".mp4 cannot hold the audio of .* \\(pcm_u8\\); .*.mkv"),
                                 ("b.y4m", path, "cannot hold audio; --copy_audio needs"),
                                 ("b", path, "cannot hold audio"), ("b.mkv", silent, "holds no audio"),
                                 ("b.mkv", tmp_path / "none.mkv", "none.mkv does not exist"),
                                 ("b.mkv", Path(__file__), "test_any_video.py cannot be read")):
        with pytest.raises(InputError, match=words):
            through(path, tmp_path / output, sound=sound)
        assert not (tmp_path / output).exists()

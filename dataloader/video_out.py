"""Frames to files: PNG folder, raw YUV or RGB, y4m (also to standard output), mp4 and mkv.

Every writer is a context that yields `write(frame, stamp=None)`: a tensor (3, H, W), uint8 or float in [0, 1], and when
it is shown, in units of the video's time base (mp4 and mkv keep it; elsewhere frames come at a constant rate). Files
and folders appear under their final name when the block ends well, and not at all otherwise.

Compressed kinds are lossless, so that they hold what was decoded: mp4 is H.264 with QP 0, mkv is FFV1. Their colour is
tagged.
"""
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from PIL import Image
from torch import Tensor

from dataloader.sound import Sound, copied_sound
from util.color import Color, PixelFormat, rgb_to_yuv
from util.errors import InputError
from util.files import atomic_path
from util.video import ColorTags, VideoFacts

Write = Callable[..., None]
"""(frame, stamp=None)"""

RANGE_TAGS = {"limited": 1, "full": 2}      # FFmpeg's AVColorRange
ENCODERS = {".mp4": ("libx264", {"qp": "0", "preset": "veryfast"}), ".mkv": ("ffv1", {"level": "3", "slicecrc": "1"})}
SLICED = 16                                 # lines that FFV1's slices, and with them its checksums, need at least
MUXERS = {".mp4": "mp4", ".mkv": "matroska"}
DEFAULT_RATE = Fraction(25)                 # containers want one


@contextmanager
def png_folder(path: str | Path) -> Iterator[Write]:
    """frame_1.png, frame_2.png, ...; a folder that holds nothing else is replaced.

    Raises:
        InputError: the place holds other files or cannot be written.
    """
    path = Path(path)
    if path.exists() and not (path.is_dir() and all(re.fullmatch(r"frame_\d+\.png", p.name) for p in path.iterdir())):
        raise InputError(f"{path} holds more than frames; choose another folder")
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        number = 0

        def write(frame: Tensor, stamp: int | None = None) -> None:
            nonlocal number
            number += 1
            Image.fromarray(to_pixels(frame)).save(temporary / f"frame_{number}.png")

        yield write
        temporary.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error}); choose another place") from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def to_pixels(frame: Tensor) -> np.ndarray:
    """uint8 (H, W, 3). A float frame is rounded as decoders round theirs (util/coding/session.py): half to even."""
    rgb = _array(frame)
    if rgb.dtype != np.uint8:
        rgb = np.clip(np.rint(rgb * 255), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(rgb.transpose(1, 2, 0))


def _array(frame: Tensor) -> np.ndarray:
    return frame.detach().cpu().numpy()


@contextmanager
def raw_file(path: str | Path, pixels: PixelFormat, color: Color | None, order: tuple[int, ...] = (0, 1, 2)
             ) -> Iterator[Write]:
    """Planes one after the other. `order`: how to store them, by index."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        def write(frame: Tensor, stamp: int | None = None) -> None:
            planes = rgb_to_yuv(_array(frame), pixels, color)
            file.writelines(planes[i].tobytes() for i in order[:len(planes)])

        yield write


@contextmanager
def y4m_file(path: str | Path, pixels: PixelFormat, height: int, width: int, facts: VideoFacts,
             say: Callable[[str], None]) -> Iterator[Write]:
    """YUV4MPEG2, to standard output if the path is "-". The format can tell the range, but not the matrix.

    Raises:
        InputError: RGB, or the place cannot be written (the reader of the pipe went away, the disk is full).
    """
    if pixels.chroma == "rgb":
        raise InputError("y4m cannot hold RGB; use --pixel_format 444, or an mkv file")
    if str(path) != "-":
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            yield _y4m_writer(file, path, pixels, height, width, facts, say)
        return
    try:
        yield _y4m_writer(sys.stdout.buffer, path, pixels, height, width, facts, say)
        sys.stdout.buffer.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())      # or the exit would try to flush again
        raise InputError(f"standard output cannot be written ({error.strerror}); keep its reader running") from None


def _y4m_writer(file: BinaryIO, path: str | Path, pixels: PixelFormat, height: int, width: int, facts: VideoFacts,
                say: Callable[[str], None]) -> Write:
    rate, aspect, color = facts.rate or DEFAULT_RATE, facts.pixel_aspect or Fraction(1), facts.color.color
    chroma = {"400": "mono", "420": "420mpeg2" if pixels.depth == 8 else "420"}.get(pixels.chroma, pixels.chroma)
    chroma += "" if pixels.depth == 8 else f"{'' if pixels.chroma == '400' else 'p'}{pixels.depth}"
    header = (f"YUV4MPEG2 W{width} H{height} F{rate.numerator}:{rate.denominator} Ip "
              f"A{aspect.numerator}:{aspect.denominator} C{chroma} XCOLORRANGE={color.range.upper()}\n")
    number, constant = 0, True

    def write(frame: Tensor, stamp: int | None = None) -> None:
        nonlocal header, number, constant
        if constant and stamp is not None and stamp != facts.expected(number):
            constant = False
            say(f"the rate of the source varies, which y4m cannot tell: {path} gets {float(rate):g} frames per second; "
                "mp4 and mkv keep time stamps")
        planes = rgb_to_yuv(_array(frame), pixels, color)
        file.writelines([header.encode(), b"FRAME\n", *(plane.tobytes() for plane in planes)])
        header, number = "", number + 1

    return write


@contextmanager
def encoded_file(path: str | Path, pixels: PixelFormat, height: int, width: int, facts: VideoFacts,
                 sound: str | Path | None = None) -> Iterator[Write]:
    """A lossless mp4 (H.264) or mkv (FFV1), by the ending of the path.

    Args:
        sound: a file whose audio goes in as well, untouched.

    Raises:
        InputError: the encoder has no such format or size, the place cannot be written, or the audio cannot be copied.
    """
    kind = Path(path).suffix.lower()
    encoder, options = ENCODERS[kind]
    if kind == ".mp4" and pixels.chroma in ("420", "422") and (width % 2 or height % 2 and pixels.chroma == "420"):
        raise InputError(f"mp4 cannot hold {width}x{height} in {pixels.chroma}: a side is odd; use mkv or y4m, or "
                         "--pixel_format 444")
    if kind == ".mkv" and min(height, width) < SLICED:
        options = {"level": "1"}
    name, rate = ffmpeg_name(pixels, encoder), facts.rate or DEFAULT_RATE
    time_base = facts.time_base or 1 / rate
    exact = {"movie_timescale": str(time_base.denominator)} if kind == ".mp4" else {}       # or starts are in ms
    with (atomic_path(path) as temporary, _as_input_error(path),
          av.open(f"file:{temporary}", "w", format=MUXERS[kind], options=exact) as container):
        stream = container.add_stream(encoder, rate=rate, options=options)
        codec = stream.codec_context
        stream.width, stream.height, stream.pix_fmt = width, height, name
        stream.time_base = codec.time_base = time_base
        if facts.pixel_aspect:
            codec.sample_aspect_ratio = facts.pixel_aspect
        tag_color(codec, facts.color)
        with copied_sound(sound, container, path) as audio:
            timeline = _Timeline(container, stream, facts, audio)

            def write(frame: Tensor, stamp: int | None = None) -> None:
                timeline.add(picture(rgb_to_yuv(_array(frame), pixels, facts.color.color), pixels, name), stamp)

            yield write
            timeline.finish()


class _Timeline:
    """Gives pictures their times; each waits for the next one, which tells how long it is shown."""

    def __init__(self, container: av.container.OutputContainer, stream: av.VideoStream, facts: VideoFacts,
                 sound: Sound | None):
        self._container, self._stream, self._facts, self._sound = container, stream, facts, sound
        self._base = stream.codec_context.time_base
        self._usual = max(1, round(1 / ((facts.rate or DEFAULT_RATE) * self._base)))
        self._waiting: av.VideoFrame | None = None
        self._number = 0

    def add(self, frame: av.VideoFrame, stamp: int | None) -> None:
        if stamp is None:
            stamp = self._facts.expected(self._number) if self._facts.time_base else self._number
        if self._waiting is not None:
            stamp = max(stamp, self._waiting.pts + 1)
            self._encode(stamp - self._waiting.pts)
        frame.pts, frame.time_base = stamp, self._base
        self._waiting, self._number = frame, self._number + 1

    def _encode(self, duration: int) -> None:
        frame = self._waiting
        frame.duration = duration
        if self._sound is not None:
            self._sound.write_until(frame.pts * self._base)
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        if self._waiting is not None:
            self._encode(self._usual)
        self._container.mux(self._stream.encode())
        if self._sound is not None:
            end = 0 if self._waiting is None else self._waiting.pts + self._usual
            self._sound.finish(end * self._base)


@contextmanager
def _as_input_error(path: str | Path) -> Iterator[None]:
    """FFmpeg's refusals; errors of the file system pass on to atomic_path."""
    try:
        yield
    except av.error.FFmpegError as error:
        if isinstance(error, OSError) and error.errno and error.errno > 0:
            raise
        raise InputError(f"{path} cannot be encoded ({error.strerror or error}); choose another --pixel_format or "
                         "--bit_depth") from None


def ffmpeg_name(pixels: PixelFormat, encoder: str) -> str:
    """The pixel format in FFmpeg's words.

    Raises:
        InputError: the encoder does not have it.
    """
    deep = "" if pixels.depth == 8 else f"{pixels.depth}le"
    name = {"400": "gray", "rgb": "gbrp"}.get(pixels.chroma, f"yuv{pixels.chroma}p") + deep
    if name == "gbrp" and encoder == "ffv1":
        name = "bgr0"                                                       # the only 8-bit RGB of FFV1
    if name not in (known := [form.name for form in av.Codec(encoder, "w").video_formats or ()]):
        raise InputError(f"pixel format {pixels.chroma} with {pixels.depth} bits ({name}) is unknown to {encoder}; "
                         f"choose one of {', '.join(n for n in known if re.match('yuv4|gray|gbrp', n))}")
    return name


def tag_color(codec: av.VideoCodecContext, color: ColorTags) -> None:
    """Write the colour into the stream's tags."""
    codec.colorspace, codec.color_range = color.matrix, RANGE_TAGS[color.range]
    codec.color_primaries, codec.color_trc = color.primaries, color.transfer


def picture(planes: list[np.ndarray], pixels: PixelFormat, name: str) -> av.VideoFrame:
    """Integer planes (Y, U, V or R, G, B) as FFmpeg's frame."""
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, name)
    if name == "bgr0":
        packed = np.dstack([planes[2], planes[1], planes[0], np.zeros_like(planes[0])])
        planes = [packed.reshape(height, 4 * width)]
    elif pixels.chroma == "rgb":
        planes = [planes[1], planes[2], planes[0]]
    for target, plane in zip(frame.planes, planes):
        rows = np.frombuffer(target, dtype=pixels.dtype).reshape(target.height, -1)
        padded = np.zeros_like(rows)
        padded[:, :plane.shape[1]] = plane
        target.update(padded.tobytes())
    return frame

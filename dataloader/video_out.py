"""Frames to mp4 and mkv; plain files: frames_out.py, which says what a writer is.

Both kinds are lossless, so that they hold what was decoded: mp4 is H.264 with QP 0, mkv is FFV1. Their colour is
tagged, and time stamps are kept.
"""
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from torch import Tensor

from dataloader.frames_out import DEFAULT_RATE, Write, to_array
from dataloader.sound import Sound, copied_sound
from util.color import PixelFormat, rgb_to_yuv
from util.errors import InputError
from util.files import atomic_path
from util.video import ColorTags, VideoFacts

RANGE_TAGS = {"limited": 1, "full": 2}      # FFmpeg's AVColorRange
ENCODERS = {".mp4": ("libx264", {"qp": "0", "preset": "veryfast"}), ".mkv": ("ffv1", {"level": "3", "slicecrc": "1"})}
SLICED = 16                                 # lines that FFV1's slices, and with them its checksums, need at least
MUXERS = {".mp4": "mp4", ".mkv": "matroska"}


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
                timeline.add(picture(rgb_to_yuv(to_array(frame), pixels, facts.color.color), pixels, name), stamp)

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

"""Video files and pipes as frames, through PyAV (FFmpeg's libraries): mp4, mkv, y4m and whatever else they demux.

Pictures are taken from the decoder as they are, plane by plane, and made RGB by util/color.py: FFmpeg converts nothing.
The colour matrix and range come from the flags, else from the stream's tags, and are asked for when both are silent.
"""
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import torch
from torch import Tensor

from util.color import Color, PixelFormat, yuv_to_rgb
from util.errors import InputError

STDIN = "-"
MATRICES = {1: "BT709", 5: "BT601", 6: "BT601"}         # H.273 table 4; 2 is "unspecified"
COLOR_RANGES = {1: "limited", 2: "full"}                # FFmpeg's AVColorRange; 0 is "unspecified"
PACKED = {"rgb24": (0, 1, 2), "bgr24": (2, 1, 0), "bgr0": (2, 1, 0)}      # where R, G and B lie within a pixel
PLANAR = re.compile(r"(gray|gbrp|yuvj?(420|422|444)p)(9|10|12|14|16)?(?:le)?")


def say_on_stderr(line: str) -> None:
    """Where remarks go unless the caller says otherwise: standard output may be a video."""
    print(f"note: {line}", file=sys.stderr)


class VideoFile:
    """A FrameSource of the first video stream of a file, or of standard input.

    Args:
        path: the file, or "-" for standard input, which can be iterated over once.
        matrix, range: "BT601" or "BT709", "limited" or "full"; None takes the stream's tag.
        rate: frames per second; None takes the stream's.
        say: takes remarks (audio is dropped, a flag overrides a tag).

    Raises:
        InputError: no such file, no video in it, corrupt or cut off (also while iterating), an unknown pixel format,
            colour that neither flag nor tag tells.
    """

    def __init__(self, path: str | Path, *, matrix: str | None = None, range: str | None = None,
                 rate: Fraction | None = None, say: Callable[[str], None] = say_on_stderr):
        self.path = path
        self.piped = str(path) == STDIN
        self.name = "stdin" if self.piped else Path(path).stem
        reader = _Reader(path)
        self.rate = rate or reader.stream.average_rate or reader.stream.guessed_rate
        self.length = None if self.piped else _count(path)
        frames = reader.frames()
        self._remark_streams(reader.container, say)
        first = next(frames, None)
        if first is None:
            raise InputError(f"video {self.name} has no pictures; give another file")
        self.height, self.width = first.height, first.width
        self.pixels = pixel_format(first.format.name, self.name)
        self._color = self._choose_color(first, matrix, range, say)
        self.color = self._color.matrix if self._color else "RGB"
        self._kind = _kind(first)
        self._remark_picture(first, say)
        self._waiting: Iterator[av.VideoFrame] | None = itertools.chain([first], frames) if self.piped else None
        if not self.piped:
            frames.close()

    def _choose_color(self, frame: av.VideoFrame, matrix: str | None, range_: str | None,
                      say: Callable[[str], None]) -> Color | None:
        """By the flags, else the tags; None for RGB."""
        if self.pixels.chroma == "rgb":
            return None
        tagged_range = "full" if frame.format.name.startswith("yuvj") else COLOR_RANGES.get(int(frame.color_range))
        tagged_matrix = MATRICES.get(int(frame.colorspace))
        if not matrix and not tagged_matrix and self.pixels.chroma != "400":
            tag = "no colour matrix tag" if int(frame.colorspace) == 2 else f"colour matrix tag {int(frame.colorspace)}"
            raise InputError(f"video {self.name} has {tag}, and only BT601 and BT709 are known; "
                             "say which with --color_matrix")
        if not range_ and not tagged_range:
            raise InputError(f"video {self.name} has no colour range tag; say limited or full with --color_range")
        for flag, tag in ((matrix, tagged_matrix), (range_, tagged_range)):
            if flag and tag and flag != tag:
                say(f"{self.name} is tagged {tag}, but is read as {flag}, as the flag says")
        return Color(matrix or tagged_matrix or "BT709", range_ or tagged_range)        # gray has no matrix

    def _remark_streams(self, container: av.container.InputContainer, say: Callable[[str], None]) -> None:
        if container.streams.audio:
            say(f"{self.name} has audio, which is dropped")
        if len(container.streams.video) > 1:
            say(f"{self.name} has {len(container.streams.video)} video streams; the first is used")

    def _remark_picture(self, frame: av.VideoFrame, say: Callable[[str], None]) -> None:
        if frame.rotation:
            say(f"{self.name} is to be shown rotated by {frame.rotation} degrees; pictures are used as stored")
        if frame.interlaced_frame:
            say(f"{self.name} is interlaced; pictures are used as stored")

    def planes(self) -> Iterator[list[np.ndarray]]:
        """The integer planes of every frame, as stored (RGB in that order)."""
        frames = self._waiting if self.piped else _Reader(self.path).frames()
        if frames is None:
            raise InputError("standard input can be read only once; give a file")
        self._waiting = None
        n = 0
        for n, frame in enumerate(frames, start=1):
            if _kind(frame) != self._kind:
                raise InputError(f"video {self.name} changes its size or format at frame {n}; convert it to one")
            yield frame_planes(frame, self.pixels)
        if self.length is not None and n != self.length:
            raise InputError(f"video {self.name} is corrupt: {n} of {self.length} frames can be decoded; "
                             "give an intact file")

    def __iter__(self) -> Iterator[Tensor]:
        for planes in self.planes():
            yield torch.from_numpy(yuv_to_rgb(planes, self.pixels, self._color))


class _Reader:
    """An open container and its first video stream; FFmpeg's errors become InputErrors."""

    def __init__(self, path: str | Path):
        piped = str(path) == STDIN
        self.name = "stdin" if piped else Path(path).name
        if not piped and not Path(path).is_file():
            raise InputError(f"video {path} does not exist; give a file, a folder of frame_1.png, ... or - for a pipe")
        self.file = _Counted(sys.stdin.buffer) if piped else None
        with self.translated():
            self.container = av.open(self.file or f"file:{path}", options={"err_detect": "explode"})
        if not self.container.streams.video:
            kinds = sorted({stream.type for stream in self.container.streams}) or ["nothing"]
            raise InputError(f"{self.name} holds no video, only {', '.join(kinds)}; give a video")
        self.stream = self.container.streams.video[0]
        self.stream.codec_context.options = {"err_detect": "explode"}
        self.stream.thread_type = "AUTO"

    def translated(self) -> "_Translated":
        return _Translated(self.name)

    def cut_off(self, frames: int) -> InputError:
        return InputError(f"video {self.name} is cut off or corrupt after {frames} frames; give an intact file")

    def packets(self) -> Iterator[av.Packet]:
        """The coded pictures, all there are; closes the container."""
        y4m = self.container.format.name == "yuv4mpegpipe"
        end = n = 0
        with self.container, self.translated():
            for packet in self.container.demux(self.stream):
                if packet.size:
                    end, n = (packet.pos or 0) + packet.size, n + 1
                    yield packet
            size = self.file.bytes if self.file else self.container.size
            if y4m and n and end != size:                           # FFmpeg passes over an incomplete last frame
                raise self.cut_off(n)

    def frames(self) -> Iterator[av.VideoFrame]:
        """Decoded pictures in display order; closes the container."""
        with self.translated():
            for packet in itertools.chain(self.packets(), [None]):
                if packet is None and not self.stream.codec_context.is_open:
                    return
                for frame in self.stream.codec_context.decode(packet):
                    if frame.is_corrupt:
                        raise InputError(f"video {self.name} is corrupt; give an intact file")
                    yield frame


class _Counted:
    """A pipe that knows how much has been read from it."""

    def __init__(self, file: BinaryIO):
        self.file, self.bytes = file, 0

    def read(self, size: int) -> bytes:
        data = self.file.read1(size)
        self.bytes += len(data)
        return data


class _Translated:
    """A context in which FFmpeg's errors turn into InputErrors (a generator's caller may raise inside it as well)."""

    def __init__(self, name: str):
        self.name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, traceback) -> None:
        if isinstance(error, (av.error.FFmpegError, OSError)):
            hint = "; pipes take mkv or y4m" if self.name == "stdin" else ""
            raise InputError(f"video {self.name} cannot be read ({error.strerror or error}); "
                             f"give an intact video file{hint}") from None


def _count(path: str | Path) -> int:
    """Pictures in a file, by demuxing without decoding.

    Raises:
        InputError: fewer than its header promises.
    """
    reader = _Reader(path)
    promised, rate = reader.stream.frames, reader.stream.average_rate or Fraction(25)
    duration = _seconds(reader.stream.metadata.get("DURATION", ""))             # matroska keeps it per stream
    packets, shown, end = 0, 0, Fraction(0)
    for packet in reader.packets():
        packets += 1
        shown += not packet.is_discard
        if packet.pts is not None:
            end = max(end, packet.pts * packet.time_base + (packet.duration * packet.time_base or 1 / rate))
    if packets < promised or duration - end > 1 / (2 * rate):
        raise reader.cut_off(packets)
    return shown


def _seconds(clock: str) -> Fraction:
    """Of h:mm:ss.sss; 0 if it is no clock."""
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d*)?)", clock)
    return int(match[1]) * 3600 + int(match[2]) * 60 + Fraction(match[3]) if match else Fraction(0)


def _kind(frame: av.VideoFrame) -> tuple:
    """What must not change within a video."""
    return frame.width, frame.height, frame.format.name, int(frame.colorspace), int(frame.color_range)


def pixel_format(name: str, video: str = "") -> PixelFormat:
    """Of FFmpeg's name: planar YUV, planar RGB and gray.

    Raises:
        InputError: any other.
    """
    if name in PACKED:
        return PixelFormat("rgb", 8)
    match = PLANAR.fullmatch(name)
    if not match:
        raise InputError(f"video {video} has pixel format {name}; "
                         "convert it to planar 4:2:0, 4:2:2, 4:4:4, gray or gbrp")
    chroma = match[2] or {"gray": "400", "gbrp": "rgb"}[match[1]]
    return PixelFormat(chroma, int(match[3] or 8))


def frame_planes(frame: av.VideoFrame, pixels: PixelFormat) -> list[np.ndarray]:
    """Integer planes (Y, U, V or R, G, B) of a decoded picture, without padding."""
    if packed := PACKED.get(frame.format.name):
        plane = frame.planes[0]
        values = np.frombuffer(plane, dtype=np.uint8).reshape(plane.height, -1)
        depth = 4 if frame.format.name == "bgr0" else 3
        return [values[:, i:depth * plane.width:depth].copy() for i in packed]
    planes = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, dtype=pixels.dtype).reshape(plane.height, -1)
        planes.append(rows[:, :plane.width].copy())
    return [planes[2], planes[0], planes[1]] if pixels.chroma == "rgb" else planes        # gbrp stores G, B, R

"""Containers through PyAV (FFmpeg's libraries): their packets and decoded pictures, whether they are whole."""
import itertools
import re
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av

from dataloader.source import STDIN
from util.errors import InputError


class Container:
    """An open container and its first video stream that is no cover picture; FFmpeg's errors become InputErrors.

    Args:
        path: the file, or "-" for standard input.

    Attributes:
        rate: frames per second on average, or None.
        pixel_aspect: width over height of a pixel, or None.

    Raises:
        InputError: it does not exist, cannot be read, or holds no video.
    """

    def __init__(self, path: str | Path):
        piped = str(path) == STDIN
        self.name = "stdin" if piped else Path(path).name
        if not piped and not Path(path).is_file():
            raise InputError(f"video {path} does not exist; give a file, a folder of frame_1.png, ... or - for a pipe")
        self.file = _Counted(sys.stdin.buffer) if piped else None
        with self.translated():
            self.container = av.open(self.file or f"file:{path}", options={"err_detect": "explode"})
        self.videos = [stream for stream in self.container.streams.video
                       if not stream.disposition & av.stream.Disposition.attached_pic]
        if not self.videos:
            kinds = sorted({stream.type for stream in self.container.streams}) or ["nothing"]
            cover = " (a cover picture)" if self.container.streams.video else ""
            raise InputError(f"{self.name} holds no video, only {', '.join(kinds)}{cover}; give a video")
        self.stream = self.videos[0]
        self.stream.codec_context.options = {"err_detect": "explode"}
        self.stream.thread_type = "AUTO"
        self.rate = self.stream.average_rate or self.stream.guessed_rate or None     # not to be asked once it is closed
        self.pixel_aspect = self.stream.sample_aspect_ratio or None

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


def count_pictures(path: str | Path) -> int:
    """Pictures in a file, by demuxing without decoding.

    Raises:
        InputError: fewer than its header promises.
    """
    reader = Container(path)
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

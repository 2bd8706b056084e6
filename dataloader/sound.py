"""The audio of one container into another, packet by packet, untouched.

All of it, as a rule. Where the pictures end before those that lie beside the sound (a stream of the first frames
alone), the sound that begins later is left out.
"""
import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av

from util.errors import InputError


class Sound:
    """The audio streams of `container`, to be added to those of `target`.

    Raises:
        InputError: there is no audio, or `target` cannot hold it.
    """

    def __init__(self, source: av.container.InputContainer, path: Path, target: av.container.OutputContainer,
                 output: Path):
        if not source.streams.audio:
            raise InputError(f"--copy_audio {path} holds no audio; give the file that the video was made of, or leave "
                             "the flag out")
        self._target = target
        self._streams = {}
        for stream in source.streams.audio:
            if stream.codec_context.name not in target.supported_codecs:
                raise InputError(f"--copy_audio: {output.suffix} cannot hold the audio of {path} "
                                 f"({stream.codec_context.name}); use an --output that ends in .mkv")
            copy = target.add_stream_from_template(stream)
            copy.time_base = stream.time_base
            copy.metadata.update(stream.metadata)
            self._streams[stream.index] = copy
        self._packets = source.demux(*source.streams.audio, *source.streams.video[:1])
        self._waiting: av.Packet | None = None
        self._pictures_until = -math.inf

    def write_until(self, seconds: Fraction) -> None:
        """All packets that begin until a time."""
        while (packet := self._next()) is not None:
            if _begin(packet) > seconds:
                self._waiting = packet
                return
            self._write(packet)

    def finish(self, end: Fraction) -> None:
        """What is left: all of it, or what begins before the end of the pictures if the source has more of them."""
        rest = []
        while self._pictures_until < end and (packet := self._next()) is not None:
            rest.append(packet)
        for packet in rest:
            if self._pictures_until < end or _begin(packet) < end:
                self._write(packet)

    def _next(self) -> av.Packet | None:
        """The next packet of audio. Those of the pictures beside it only tell that there are more."""
        if self._waiting is not None:
            packet, self._waiting = self._waiting, None
            return packet
        for packet in self._packets:
            if packet.stream_index in self._streams:
                return packet
            if packet.pts is not None:
                self._pictures_until = max(self._pictures_until, packet.pts * packet.time_base)
        return None

    def _write(self, packet: av.Packet) -> None:
        if packet.size:
            packet.stream = self._streams[packet.stream_index]
            self._target.mux(packet)


def _begin(packet: av.Packet) -> Fraction | float:
    """When a packet is played, in seconds; at once where it does not say."""
    begin = packet.dts if packet.dts is not None else packet.pts
    return -math.inf if begin is None else begin * packet.time_base


@contextmanager
def copied_sound(path: str | Path | None, target: av.container.OutputContainer, output: str | Path
                 ) -> Iterator[Sound | None]:
    """The sound of a file, ready to be written; None for no file.

    Raises:
        InputError: as `Sound`, or the file cannot be read.
    """
    if path is None:
        yield None
        return
    if not Path(path).is_file():
        raise InputError(f"--copy_audio {path} does not exist; give a file with sound")
    try:
        source = av.open(f"file:{path}")
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"--copy_audio {path} cannot be read ({error.strerror or error}); give a file with sound"
                         ) from None
    with source:
        yield Sound(source, Path(path), target, Path(output))

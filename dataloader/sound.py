"""The audio of one container into another, packet by packet, untouched."""
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
        self._packets = source.demux(*source.streams.audio)
        self._waiting: av.Packet | None = None

    def write_until(self, seconds: Fraction | None) -> None:
        """All packets that begin before a time; all there are for None."""
        while (packet := self._waiting or next(self._packets, None)) is not None:
            begin = packet.dts if packet.dts is not None else packet.pts
            if seconds is not None and begin is not None and begin * packet.time_base > seconds:
                self._waiting = packet
                return
            self._waiting = None
            if packet.size:
                packet.stream = self._streams[packet.stream_index]
                self._target.mux(packet)


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

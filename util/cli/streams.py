"""What `--compress` and `--decompress` of single files (stream_files.py) and of data sets (stream_sets.py) share."""
import argparse
import hashlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from torch import Tensor
from tqdm import tqdm

from dataloader.source import FrameSource
from models.entropy.stream import StreamError
from util.cli.setup import build_model, settle_arithmetic
from util.coding.codec import Codec
from util.coding.gop import CodingPlan
from util.coding.session import DecodedFrame, EncodedPart
from util.errors import InputError
from util.files import atomic_path
from util.stopwatch import each

PIPE = Path("-")


def build_codec(arguments: argparse.Namespace) -> Codec:
    """Model, weights and tables."""
    arithmetic = settle_arithmetic(arguments)
    return Codec(build_model(arguments), arithmetic)


def write_stream(codec: Codec, arguments: argparse.Namespace, frames: Iterable[Tensor], source: FrameSource,
                 plan: CodingPlan, path: Path) -> Iterator[EncodedPart]:
    """Write a stream to `path` (complete or not at all; `-` is standard output), yielding the coded frames.

    Args:
        frames: those of the source, on whatever way they come.
    """
    digests = []
    with ExitStack() as stack:
        if path == PIPE:
            file, temporary = sys.stdout.buffer, None
        else:
            temporary = stack.enter_context(atomic_path(path))
            file = stack.enter_context(temporary.open("wb"))
        bar = stack.enter_context(tqdm(total=source.length, desc=source.name, unit="frame", disable=None))
        for part in codec.encode(each(frames, codec.span, "io"), plan, portable=arguments.portable, rate=source.rate,
                                 color=source.color, align=arguments.align_factor):
            with codec.span("io"):
                file.write(part.data)
            if part.number is not None:
                if arguments.verify:
                    digests.append(_digest(part))
                bar.update()
                yield part
        file.flush()
        if arguments.verify:
            _verify(codec, temporary, path, digests)


def _digest(part: EncodedPart | DecodedFrame) -> bytes:
    """Of the exact decoded frame."""
    return hashlib.sha256(part.frame.contiguous().cpu().numpy().tobytes()).digest()


def _verify(codec: Codec, written: Path, path: Path, digests: list[bytes]) -> None:
    """Decode what was just written and demand the very frames that the encoder saw."""
    with written.open("rb") as file:
        for n, (frame, digest) in enumerate(zip(codec.decode(file, max_pixels=None), digests, strict=True), start=1):
            if _digest(frame) != digest:
                raise StreamError(f"--verify: frame {n} of {path} decodes differently; nothing was written; "
                                  "report this, with the command")


@contextmanager
def open_stream(path: Path) -> Iterator[BinaryIO]:
    """A stream to read; `-` is standard input.

    Raises:
        InputError: it cannot be read.
    """
    if path == PIPE:
        yield sys.stdin.buffer
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"stream {path} cannot be read ({error.strerror}); give a file that --compress wrote"
                         ) from None
    with file:
        yield file

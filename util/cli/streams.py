"""What `--compress` and `--decompress` of single files (stream_files.py) and of data sets (stream_sets.py) share."""
import argparse
import hashlib
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor
from torch.profiler import record_function
from tqdm import tqdm

from dataloader.source import FrameSource
from models.entropy.stream import StreamError
from models.entropy.transfer import to_device
from util.chosen_model import model_of
from util.cli.setup import build_model, settle_arithmetic, weight_files
from util.coding.codec import Codec
from util.coding.gop import CodingPlan
from util.coding.rate_control.controller import Controller
from util.coding.session import DecodedFrame, EncodedPart
from util.errors import InputError
from util.evaluation.metrics import mean_squared_error, psnr_of_error
from util.files import atomic_path
from util.spans import each
from util.video import Timed

PIPE = Path("-")


def build_codec(arguments: argparse.Namespace) -> Codec:
    """Model, weights and tables."""
    arithmetic, model = settle_arithmetic(arguments), model_of(arguments)
    foreign = "" if arguments.untrained else model.foreign(weight_files(arguments))
    return Codec(build_model(arguments), arithmetic, model.selector, foreign, arguments.threads)


class Originals:
    """Passes frames on and keeps each until the part that was made of it has come."""

    def __init__(self, frames: Iterable[Timed]):
        self._frames, self._passed = frames, deque()

    def __iter__(self) -> Iterator[Timed]:
        for frame in self._frames:
            self._passed.append(frame)
            yield frame

    def take(self) -> Tensor:
        """The source of the part that comes next, uint8 (3, H, W)."""
        return self._passed.popleft().pixels


class MeanPsnr:
    """The mean PSNR of coded frames, for input that may have no end.

    Errors stay where the frames are, some dozens at a time: on a GPU the host waits once for all of them.

    Attributes:
        frames: how many were added.
    """
    HELD = 64

    def __init__(self, codec: Codec):
        self._codec, self._held, self._sum, self.frames = codec, [], 0.0, 0

    @torch.inference_mode()
    def add(self, part: EncodedPart, original: Tensor) -> None:
        """A coded frame and its source, uint8 (3, H, W)."""
        source = self._codec.arithmetic.frame(to_device(original, part.frame.device))
        self._held.append(mean_squared_error(part.frame, source.to(part.frame.dtype)))
        self.frames += 1
        if len(self._held) == self.HELD:
            self._settle()

    def value(self) -> float:
        """In dB; infinite where a frame came back exactly."""
        self._settle()
        return self._sum / self.frames

    def _settle(self) -> None:
        if self._held:
            self._sum += sum(map(psnr_of_error, torch.stack(self._held).tolist()))
            self._held = []


def write_stream(codec: Codec, arguments: argparse.Namespace, frames: Iterable[Timed], source: FrameSource,
                 plan: CodingPlan | Controller, path: Path) -> Iterator[EncodedPart]:
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
        for part in codec.encode(each(frames, "io"), plan, portable=arguments.portable, facts=source.facts,
                                 align=arguments.align_factor):
            with record_function("io"):
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

"""Frames in whatever form Python has them: tensors and arrays, channels first or last, files and folders."""
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from dataloader.open import open_source
from util.errors import InputError
from util.video import Timed, VideoFacts


def as_timed(frame: Any, number: int) -> Timed:
    """A frame as uint8 (3, H, W), with its time stamp where it has one.

    Args:
        frame: a tensor or array of uint8 RGB, (3, H, W) or (H, W, 3), or such a one in a `Timed`. A frame of
            three rows or columns that could be both is (3, H, W).
        number: of the frame, from 0, for messages.

    Raises:
        InputError: anything else, in a sentence.
    """
    pixels, stamp = frame if isinstance(frame, Timed) else (frame, None)
    if isinstance(pixels, np.ndarray):
        what = f"{pixels.dtype} array of shape {pixels.shape}"
        if pixels.dtype == np.uint8:
            pixels = torch.from_numpy(np.ascontiguousarray(pixels))
    elif isinstance(pixels, Tensor):
        what = f"{str(pixels.dtype).removeprefix('torch.')} tensor of shape {tuple(pixels.shape)}"
    else:
        raise InputError(f"frame {number + 1} is of type {type(pixels).__name__}; frames are tensors or NumPy arrays, "
                         "uint8 RGB, (3, H, W) or (H, W, 3)")
    if not isinstance(pixels, Tensor) or pixels.dtype != torch.uint8:
        scale = "; multiply by 255 and round, if it lies in [0, 1]" if "float" in what else ""
        raise InputError(f"frame {number + 1} is a {what}; frames are uint8, 0 to 255{scale}")
    if pixels.ndim != 3 or 3 not in (pixels.shape[0], pixels.shape[2]) or not pixels.numel():
        raise InputError(f"frame {number + 1} is a {what}; frames are RGB, (3, H, W) or (H, W, 3)")
    if pixels.shape[0] != 3:
        pixels = pixels.permute(2, 0, 1)
    return Timed(pixels.contiguous(), stamp)


def frames_of(given: Any) -> tuple[Iterator[Timed], VideoFacts]:
    """The frames of a video, and what is known of it besides.

    Args:
        given: a path, a frame source, an array or tensor of frames (N, 3, H, W) or (N, H, W, 3), or any iterable of
            what `as_timed` takes.

    Raises:
        InputError: nothing of these, in a sentence; errors of a file; also while iterating.
    """
    if isinstance(given, str | Path):
        given = open_source(given)
    if isinstance(given, np.ndarray | Tensor) and given.ndim != 4:
        raise InputError(f"the frames have the shape {tuple(given.shape)}; give (N, 3, H, W), (N, H, W, 3), or a list "
                         "of frames")
    if not isinstance(given, Iterable) or isinstance(given, bytes | bytearray | dict):
        raise InputError(f"frames of type {type(given).__name__} cannot be encoded; give a list of uint8 RGB frames, "
                         "(3, H, W) or (H, W, 3), or the path of a video")
    facts = getattr(given, "facts", VideoFacts())
    frames = given.timed() if hasattr(given, "timed") else given
    return (as_timed(frame, number) for number, frame in enumerate(frames)), facts


def opened(stream: Any) -> BinaryIO:
    """A stream to read: bytes, the path of a file, or a file itself.

    Raises:
        InputError: nothing of these, or the file cannot be read.
    """
    if isinstance(stream, bytes | bytearray | memoryview):
        return io.BytesIO(stream)
    if isinstance(stream, str | Path):
        try:
            return io.BytesIO(Path(stream).read_bytes())
        except OSError as error:
            raise InputError(f"stream {stream} cannot be read ({error.strerror}); give a file that --compress wrote"
                             ) from None
    if not hasattr(stream, "read"):
        raise InputError(f"a stream of type {type(stream).__name__} cannot be decoded; give its path, its bytes or an "
                         "open file")
    return stream

"""`--compress` and `--decompress` of a single file: a video or folder to a stream, and back."""
import argparse
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path

from torch import Tensor
from torch.profiler import record_function
from tqdm import tqdm

from dataloader.open import open_sink, open_source, video_options
from dataloader.source import CenterCrop
from models.entropy.stream import StreamError
from util.chosen_model import model_of
from util.cli.datasets import say, tell_if_short
from util.cli.ladder import compress_ladder
from util.cli.setup import coding_plans
from util.cli.streams import PIPE, MeanPsnr, Originals, open_stream, write_stream
from util.cli.targets import control
from util.cli.words import Coded, count, outcome
from util.coding.codec import Codec
from util.coding.overlap import in_order
from util.coding.reader import StreamReader
from util.coding.session import DecodedFrame
from util.errors import InputError


def compress_file(arguments: argparse.Namespace, build: Callable[[argparse.Namespace], Codec]) -> None:
    """`--input`, a video or a folder, to `--output`, a stream, with the codec that `build` gives."""
    if arguments.output is None:
        raise InputError("--compress --input needs --output FILE")
    if len(arguments.QP) > 1:
        raise InputError("--compress --input takes one --QP; run it once per rate")
    _refuse_metrics(arguments)
    if arguments.verify and arguments.output == PIPE:
        raise InputError("--verify cannot read back what went to a pipe; give --output a file name")
    if arguments.visualize and arguments.output == PIPE:
        raise InputError("--visualize puts a plot beside the stream, not into a pipe; give --output a file name")
    source = open_source(arguments.input, video_options(arguments, arguments.frames), say)
    if arguments.test_crop:
        source = CenterCrop(source, arguments.crop_factor)
    plan, = coding_plans(arguments, ())
    codec = build(arguments)
    plan = plan.for_intra_rates(codec.network("float32").rates(intra=True))
    if arguments.ladder:
        compress_ladder(arguments, codec, source, plan)
        return
    controlled, replaces = control(arguments, codec, source, plan), _is_there(arguments.output)
    started, size, quality, originals = time.monotonic(), 0, MeanPsnr(codec), Originals(source.timed())
    for part in write_stream(codec, arguments, originals, source, controlled.controller, arguments.output):
        size += len(part.data)
        quality.add(part, originals.take())
        controlled.see(part)
    qualities = {"PSNR": quality.value()}
    seconds = time.monotonic() - started
    tell_if_short(arguments, quality.frames)
    size = size if arguments.output == PIPE else arguments.output.stat().st_size            # with header and end marker
    coded = Coded(quality.frames, source.width, source.height, 8 * size, source.rate)
    print(f"{outcome([coded], qualities, seconds)}; stream in {arguments.output}{replaces}"
          + (", verified" if arguments.verify else "") + controlled.told(size)
          + controlled.plot(source, arguments.output),
          file=sys.stderr if arguments.output == PIPE else sys.stdout)


def decompress_file(arguments: argparse.Namespace, build: Callable[[argparse.Namespace], Codec]) -> None:
    """`--input`, a stream, to `--output`, a folder or video, with the codec that `build` gives.

    A damaged stream still gives the frames before the damage, and then the error.
    """
    if arguments.output is None:
        raise InputError("--decompress --input needs --output, a folder for PNG frames or a video file")
    _refuse_metrics(arguments)
    try:
        codec = build(arguments)
    except InputError:
        _tell_other_model(arguments)
        raise
    done, failure, replaces = 0, None, _is_there(arguments.output)
    with open_stream(arguments.input) as file:
        stream = codec.decode(file, keep_going=arguments.keep_going, max_pixels=arguments.max_pixels, report=say)
        frames, header = itertools.islice(stream, arguments.frames), stream.header
        first = next(frames, None)
        if first is None:
            raise StreamError(f"stream {arguments.input} gives no frame; get a fresh copy")
        with open_sink(arguments.output, header.height, header.width, video_options(arguments), header.facts,
                       sound=arguments.copy_audio, say=say) as write, \
                tqdm(desc=arguments.output.name, unit="frame", disable=None) as bar:
            writes = (_writing(write, frame) for frame in itertools.chain((first,), frames))
            try:
                for _ in in_order(writes, codec.behind):
                    done += 1
                    bar.update()
            except StreamError as error:
                failure = error
    if failure:
        raise StreamError(f"{failure} ({count(done, 'frame')} written to {arguments.output}{replaces})")
    tell_if_short(arguments, done)
    print(f"{count(done, 'frame')} of {header.width}x{header.height} in {arguments.output}{replaces}",
          file=sys.stderr if arguments.output == PIPE else sys.stdout)


def _tell_other_model(arguments: argparse.Namespace) -> None:
    """That the stream is of another model, which is more to the point than what this one lacks.

    Raises:
        StreamError: it is.
    """
    if arguments.input == PIPE:
        return
    with open_stream(arguments.input) as file:
        header, chosen = StreamReader(file).header, model_of(arguments).selector
    if header.model not in ("", chosen):
        raise StreamError(f"stream {arguments.input} was coded with --model {header.model}, and this is --model "
                          f"{chosen}; give --model {header.model}")


def _is_there(path: Path) -> str:
    """What is said of an output in the end: whether it replaced another."""
    return ", in place of the former one" if path != PIPE and path.exists() else ""


def _writing(write: Callable[[Tensor], None], frame: DecodedFrame) -> Callable[[], None]:
    """What is left to do with a frame once its pixels are on the host."""
    with record_function("transfer"):
        pixels = frame.pixels

    def finish() -> None:
        with record_function("io"):
            write(pixels, frame.stamp)
    return finish


def _refuse_metrics(arguments: argparse.Namespace) -> None:
    if arguments.metrics:
        raise InputError("--metrics needs reports to write to, which --compress and --decompress make of data sets, "
                         "not of --input; use --test --input")

"""Which function does what the flags ask for. Commands import what they need, so that bad flags are told at once."""
import argparse
from collections.abc import Callable

from util.cli.verbs import VERBS
from util.errors import InputError

Command = Callable[[argparse.Namespace], None]


def command_of(arguments: argparse.Namespace) -> Command:
    """The command of the first flag that names one.

    Raises:
        InputError: no flag does.
    """
    commands: dict[str, Command] = {"list_models": list_models, "compare": compare, "compute_macs": print_macs,
                                    "compute_model_size": print_size, "compress": compress, "decompress": decompress,
                                    "test": evaluate, "train_conf": train, "schedule": train}
    for flag, command in commands.items():
        if getattr(arguments, flag):
            return command
    raise InputError(f"nothing to do; give a verb ({', '.join(VERBS)}), or a flag such as --test; see --help")


def list_models(_: argparse.Namespace) -> None:
    """The models there are, and whether their weights are here."""
    from util.cli.listing import print_models
    print_models()


def compare(arguments: argparse.Namespace) -> None:
    """Quality of one video beside another."""
    from util.cli.compare import run_compare
    run_compare(arguments)


def evaluate(arguments: argparse.Namespace) -> None:
    """Rate and quality, with estimated bits."""
    from util.cli.test import run_test
    run_test(arguments)


def compress(arguments: argparse.Namespace) -> None:
    """Write the stream of `--input`, or those of data sets."""
    from util.cli.stream_files import compress_file
    from util.cli.stream_sets import compress_sets
    from util.cli.streams import build_codec
    (compress_sets if arguments.input is None else compress_file)(arguments, build_codec)


def decompress(arguments: argparse.Namespace) -> None:
    """Read the stream of `--input`, or those of data sets."""
    from util.cli.stream_files import decompress_file
    from util.cli.stream_sets import decompress_sets
    from util.cli.streams import build_codec
    (decompress_sets if arguments.input is None else decompress_file)(arguments, build_codec)


def train(arguments: argparse.Namespace) -> None:
    """One step, or a recipe."""
    from util.training.main import run
    run(arguments)


def print_macs(arguments: argparse.Namespace) -> None:
    """Complexity depends on widths alone, so no weights are read."""
    from util.cli.setup import settle_arithmetic, untrained_model
    from util.evaluation.complexity import count_macs, describe_macs
    model = settle_arithmetic(arguments).place(untrained_model(arguments))
    decode = arguments.compute_decode_macs
    print(describe_macs(count_macs(model, decode), decode))


def print_size(arguments: argparse.Namespace) -> None:
    """Parameters and buffers."""
    from util.cli.setup import settle_arithmetic, untrained_model
    from util.evaluation.complexity import describe_size
    print(describe_size(settle_arithmetic(arguments).place(untrained_model(arguments))))

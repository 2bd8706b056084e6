"""Which function does what the flags ask for."""
import argparse
from collections.abc import Callable

from util.cli.setup import settle_arithmetic, untrained_model
from util.cli.streams import run_compress, run_decompress
from util.cli.test import run_test
from util.errors import InputError
from util.evaluation.complexity import count_macs, describe_macs, describe_size
from util.training.main import run as train

Command = Callable[[argparse.Namespace], None]


def command_of(arguments: argparse.Namespace) -> Command:
    """The command of the first flag that names one.

    Raises:
        InputError: no flag does.
    """
    commands: dict[str, Command] = {"compute_macs": print_macs, "compute_model_size": print_size,
                                    "compress": run_compress, "decompress": run_decompress, "test": run_test,
                                    "train_conf": train, "schedule": train}
    for flag, command in commands.items():
        if getattr(arguments, flag):
            return command
    raise InputError(f"nothing to do; give one of {', '.join(f'--{flag}' for flag in commands)}")


def print_macs(arguments: argparse.Namespace) -> None:
    """Complexity depends on widths alone, so no weights are read."""
    model = settle_arithmetic(arguments).place(untrained_model(arguments))
    decode = arguments.compute_decode_macs
    print(describe_macs(count_macs(model, decode), decode))


def print_size(arguments: argparse.Namespace) -> None:
    """Parameters and buffers."""
    print(describe_size(settle_arithmetic(arguments).place(untrained_model(arguments))))



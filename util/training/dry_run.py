"""`--dry_run`: every phase of a step or a recipe as a table, without data or GPU."""
import sys
from pathlib import Path
from typing import NamedTuple, TextIO

from util.training.network import TrainedNetwork
from util.training.phases import Phase

COLUMNS = ("step", "config", "phase", "first_epoch", "last_epoch", "stage", "mode", "rnn", "p_frames", "batch_size",
           "lr", "loss_R", "loss_D", "train_len", "trainable_tensors", "trainable_params")


class PhaseRow(NamedTuple):
    """One phase, as text by column."""
    cells: tuple[str, ...]


def describe_phases(step: str, train_conf: str | Path, phases: tuple[Phase, ...], network: TrainedNetwork
                    ) -> list[PhaseRow]:
    """The rows of a step.

    Args:
        step: number of the step, or empty.
        network: tells what each phase trains; it is frozen accordingly.
    """
    rows = []
    for phase in phases:
        chosen = network.select(phase).values()
        values = (step, Path(train_conf).name.removesuffix(Path(train_conf).suffix), phase.name, phase.first_epoch,
                  phase.last_epoch, phase.stage, phase.mode or "", "" if phase.rnn is None else phase.rnn,
                  phase.max_p_frames, phase.batch_size, f"{phase.lr:g}", phase.rate.text, phase.distortion.text,
                  f"{phase.train_len:g}", len(chosen), sum(parameter.numel() for parameter in chosen))
        rows.append(PhaseRow(tuple(map(str, values))))
    return rows


def print_phases(rows: list[PhaseRow], out: TextIO | None = None) -> None:
    """Aligned on a terminal, tab-separated otherwise."""
    out = out or sys.stdout
    table = [COLUMNS, *(row.cells for row in rows)]
    if out.isatty():
        widths = [max(map(len, column)) for column in zip(*table)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in table]
    else:
        lines = ["\t".join(row) for row in table]
    print("\n".join(lines), file=out)

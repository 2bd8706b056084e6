"""`--test`: rate and quality of sequences with estimated bits, in reports and summaries."""
import argparse
import time
from contextlib import ExitStack

from tqdm import tqdm

from dataloader.sequences import Sequence
from dataloader.source import FrameSource
from models.codec import FrameHeader, VideoCodec
from models.entropy.coder import Estimator
from util.arithmetic import Arithmetic
from util.cli.datasets import metric_folder, metric_names, open_sequences, report_path, summarise, tell_if_short
from util.cli.setup import build_model, coding_plans, save_dirs, settle_arithmetic
from util.cli.sharing import Share
from util.cli.words import Coded, outcome
from util.coding.gop import CodingPlan
from util.evaluation.evaluate import Observer, evaluate, gop_averages
from util.evaluation.report import FrameResult, average, write_report
from util.evaluation.yuv import metric_of

Rows = list[list[list[FrameResult]]]
"""Of one sequence: per QP, per metric, per frame."""


def run_test(arguments: argparse.Namespace) -> None:
    """Evaluate every chosen sequence at every QP and write the reports.

    Raises:
        InputError: bad flags, data or weights; checked before the first frame is coded where possible.
    """
    items = open_sequences(arguments)
    plans = [coding_plans(arguments, sequence.scene_cuts) for sequence, _ in items]
    share = Share()
    arithmetic = settle_arithmetic(arguments)
    model = build_model(arguments)
    network = arithmetic.place(model)
    started = time.monotonic()
    costs = [source.height * source.width * (source.length or 1) for _, source in items]
    rows = {i: _evaluate(arguments, network, arithmetic, *items[i], plans[i]) for i in share.mine(costs)}
    everything = share.collect(rows)
    if everything is not None:
        rows = [everything[i] for i in range(len(items))]
        _write(arguments, model, arithmetic, items, rows)
        _tell(arguments, items, rows, time.monotonic() - started)


def _evaluate(arguments: argparse.Namespace, model: VideoCodec, arithmetic: Arithmetic, sequence: Sequence,
              source: FrameSource, plans: list[CodingPlan]) -> Rows:
    """Code one sequence, with a progress bar on a terminal and pictures where asked for."""
    names = metric_names(arguments)
    plans = [plan.for_intra_rates(model.rates(intra=True)) for plan in plans]
    metrics = [metric_of(name, arguments.color_transform) for name in names]
    rows: Rows = [[[] for _ in metrics] for _ in plans]
    rate = quality = 0.0
    with ExitStack() as stack:
        coder, observe = Estimator, None
        if arguments.visualize:
            coder, observe = _painter(stack, arguments, sequence, model)
        bar = stack.enter_context(tqdm(total=source.length, desc=sequence.name, unit="frame", disable=None))
        frames = evaluate(model, arithmetic, source, plans, metrics, arguments.align_factor, coder, observe)
        for n, results in enumerate(frames, start=1):
            for per_qp, collected in zip(results, rows):
                for result, column in zip(per_qp, collected):
                    column.append(result)
            rate += results[-1][0].rate
            quality += results[-1][0].quality
            bar.set_postfix_str(f"{rate / n:.4f} bpp, {names[0]} {quality / n:.4f}")
            bar.update()
    return rows


def _painter(stack: ExitStack, arguments: argparse.Namespace, sequence: Sequence, model: VideoCodec
             ) -> tuple[type[Estimator], Observer]:
    """The coder that keeps what pictures show, and what writes the pictures of each frame and QP."""
    from util.visualize import BitMapper, Pictures
    name = sequence.report_name(arguments.color_transform)
    painters = [stack.enter_context(Pictures(folder / "visualize" / name, f"{name}, QP {qp}, GOP {arguments.gop}"))
                for folder, qp in zip(save_dirs(arguments), arguments.QP)]

    def observe(n: int, qp: int, header: FrameHeader, original, coded, coder) -> None:
        latents = model.latents(header.intra)
        painters[qp](n + 1, original, coded, coder.bits_map(latents, tuple(coded.frame.shape[-2:])))
    return BitMapper, observe


def _write(arguments: argparse.Namespace, model: VideoCodec, arithmetic: Arithmetic,
           items: list[tuple[Sequence, FrameSource]], rows: list[Rows]) -> None:
    """Reports and summaries of every QP and metric."""
    names, folders = metric_names(arguments), save_dirs(arguments)
    for qp, folder in enumerate(folders):
        for m, metric in enumerate(names):
            place = metric_folder(folder, metric, names)
            gops = []
            for (sequence, _), own in zip(items, rows):
                write_report(report_path(arguments, place, sequence), metric, own[qp][m])
                gops.append(gop_averages(own[qp][m], arguments.gop))
            summarise(arguments, qp, place, items, gops, arithmetic, model, metric)


def _tell(arguments: argparse.Namespace, items: list[tuple[Sequence, FrameSource]], rows: list[Rows],
          seconds: float) -> None:
    """A line per QP. The seconds are those of all QPs, which a frame passes one after the other."""
    tell_if_short(arguments, len(rows[0][0][0]))
    for i, (qp, folder) in enumerate(zip(arguments.QP, save_dirs(arguments))):
        videos = [Coded(len(own[i][0]), source.width, source.height,
                        sum(row.rate for row in own[i][0]) * source.width * source.height, sequence.fps)
                  for (sequence, source), own in zip(items, rows)]
        qualities = {name: average(gop for own in rows for gop in gop_averages(own[i][m], arguments.gop)).quality
                     for m, name in enumerate(metric_names(arguments))}
        print(f"QP {qp}: {outcome(videos, qualities, seconds / len(arguments.QP), estimated=True)}; "
              f"reports in {folder}{', pictures in visualize/ there' if arguments.visualize else ''}")

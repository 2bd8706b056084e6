"""`--test`: rate and quality of test sequences with estimated bits, in reports and summaries."""
import argparse
import sys

from tqdm import tqdm

from dataloader.sequences import Sequence, select
from dataloader.source import CenterCrop, FrameSource
from models.hytip import HyTIP
from util.arithmetic import Arithmetic
from util.cli.setup import build_model, coding_plans, save_dirs, settle_arithmetic, weights_path
from util.coding.gop import CodingPlan
from util.evaluation.evaluate import evaluate, gop_averages
from util.evaluation.metrics import METRICS, check_size
from util.evaluation.record import write_record
from util.evaluation.report import Averages, FrameResult, average, write_report, write_summary


def run_test(arguments: argparse.Namespace) -> None:
    """Evaluate every chosen sequence at every QP and write the reports.

    Raises:
        InputError: bad flags, data or weights; checked before the first frame is coded where possible.
    """
    sequences = select(arguments.test_dataset, arguments.test_seqs)
    metric = "MS-SSIM" if arguments.ssim else "PSNR"
    sources = [_open(arguments, sequence, metric) for sequence in sequences]
    arithmetic = settle_arithmetic(arguments)
    coding_plans(arguments, True, ())                              # bad flags, before weights are read
    model = build_model(arguments, arithmetic)
    folders = save_dirs(arguments)
    gops: list[list[list[Averages]]] = []                          # per sequence, per QP
    for sequence, source in zip(sequences, sources):
        plans = coding_plans(arguments, model.config.variable_rate, sequence.scene_cuts)
        rows = _evaluate(arguments, model, arithmetic, sequence, source, plans, metric)
        for folder, results in zip(folders, rows):
            write_report(folder / "report" / f"{_report_name(arguments, sequence)}{_suffix(arguments)}.csv",
                         metric, results)
        gops.append([gop_averages(results, plan) for results, plan in zip(rows, plans)])
    for i, folder in enumerate(folders):
        _summarise(arguments, folder, metric, sequences, [per_qp[i] for per_qp in gops])
        write_record(folder / f"{_summary_stem(arguments)}.json", arguments, arithmetic, model,
                     weights_path(arguments), sequences, sources, i)
    print(f"reports in {', '.join(map(str, folders))}")


def _open(arguments: argparse.Namespace, sequence: Sequence, metric: str) -> FrameSource:
    length = None if arguments.full_seq else arguments.test_seq_len
    source = sequence.source(arguments.data, arguments.color_transform, length)
    if arguments.full_seq and source.length != sequence.frames:
        print(f"HyTIP: warning: {sequence.name} has {source.length} frames on disk, {sequence.frames} in the "
              "original sequence", file=sys.stderr)
    if arguments.test_crop:
        source = CenterCrop(source, arguments.crop_factor)
    check_size(metric, sequence.name, source.height, source.width)
    return source


def _evaluate(arguments: argparse.Namespace, model: HyTIP, arithmetic: Arithmetic, sequence: Sequence,
              source: FrameSource, plans: list[CodingPlan], metric: str) -> list[list[FrameResult]]:
    """The rows of each plan, with a progress bar on a terminal."""
    rows: list[list[FrameResult]] = [[] for _ in plans]
    rate = quality = 0.0
    with tqdm(total=source.length, desc=sequence.name, unit="frame", disable=None) as bar:
        results = evaluate(model, arithmetic, source, plans, METRICS[metric], arguments.align_factor)
        for n, frame_results in enumerate(results, start=1):
            for collected, result in zip(rows, frame_results):
                collected.append(result)
            rate += frame_results[-1].rate
            quality += frame_results[-1].quality
            bar.set_postfix_str(f"{rate / n:.4f} bpp, {metric} {quality / n:.4f}")
            bar.update()
    return rows


def _summarise(arguments: argparse.Namespace, folder, metric: str, sequences: list[Sequence],
               gops: list[list[Averages]]) -> None:
    """The summary of one QP; a data set averages over all GOPs of its sequences."""
    per_sequence = [(sequence.name, average(own)) for sequence, own in zip(sequences, gops)]
    per_dataset = []
    for dataset in dict.fromkeys(sequence.dataset for sequence in sequences):
        own = [gop for sequence, gops_of in zip(sequences, gops) if sequence.dataset == dataset for gop in gops_of]
        per_dataset.append((dataset, average(own)))
    write_summary(folder / f"{_summary_stem(arguments)}.txt", metric, per_sequence, per_dataset)


def _report_name(arguments: argparse.Namespace, sequence: Sequence) -> str:
    return sequence.report_name(arguments.color_transform)


def _suffix(arguments: argparse.Namespace) -> str:
    return "_FullSeq" if arguments.full_seq else ""


def _summary_stem(arguments: argparse.Namespace) -> str:
    color = "_BT709" if arguments.color_transform == "BT709" else ""
    return f"brief_summary_{'&'.join(arguments.test_dataset)}{color}{_suffix(arguments)}"



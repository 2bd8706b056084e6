"""Bits and quality of an anchor, written as reports and summaries like ours (docs/anchors.md).

Every metric has a folder of its own, `{save_dir}/{anchor}[_{metric}]-{QP}`, as our PSNR and MS-SSIM runs have; PSNR
goes without a suffix.
"""
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from dataloader.source import FrameSource
from util.anchors import Anchor
from util.errors import InputError
from util.evaluation.metrics import Metric, check_size
from util.evaluation.report import Averages, FrameResult, average, average_gop, write_report, write_summary


class Item(NamedTuple):
    """A sequence to be measured. `report`: its name in reports; `dataset`: where its averages go."""
    report: str
    dataset: str
    open: Callable[[], FrameSource]


def measure_sequence(anchor: Anchor, source: FrameSource, qp: int, metrics: dict[str, Metric]
                     ) -> dict[str, list[FrameResult]]:
    """Rows of the report of each metric.

    Raises:
        InputError: see the anchor; MS-SSIM of too small frames.
    """
    for name in metrics:
        check_size(name, source.name, source.height, source.width)
    rows: dict[str, list[FrameResult]] = {name: [] for name in metrics}
    for n, (bits, original, decoded) in enumerate(anchor.code(source, qp), start=1):
        rate = bits / (source.height * source.width)
        reference, result = _batch(original) / 255, _batch(decoded)
        for name, metric in metrics.items():
            rows[name].append(FrameResult(n, metric(result, reference), rate))
    return rows


def _batch(frame: Tensor) -> Tensor:
    return frame[None].float()


def folder_of(save_dir: Path, anchor: str, metric: str, qp: int) -> Path:
    """Where the reports of one metric and rate go."""
    return save_dir / f"{anchor}{'' if metric == 'PSNR' else f'_{metric}'}-{qp}"


def measure(anchor: Anchor, items: Sequence[Item], qps: Sequence[int], metrics: dict[str, Metric], gop: int,
            save_dir: Path, color_suffix: str = "", length_suffix: str = "",
            say: Callable[[str], None] = print) -> None:
    """Code every sequence at every QP and write reports and summaries.

    Args:
        metrics: by name, see util/evaluation/yuv.py.
        gop: averages are over GOPs of so many frames, as ours are.
        color_suffix: of the summary's name, such as "_BT709".
        length_suffix: of all names, such as "_FullSeq".

    Raises:
        InputError: a QP outside the anchor's range; see the anchor.
    """
    for qp in qps:
        if qp not in anchor.qps:
            raise InputError(f"QP {qp} is outside {anchor.qps[0]}..{anchor.qps[-1]}, the range of {anchor.name}")
    for qp in qps:
        figures: dict[str, list[tuple[Item, list[Averages]]]] = {name: [] for name in metrics}
        for item in items:
            for name, rows in measure_sequence(anchor, item.open(), qp, metrics).items():
                folder = folder_of(save_dir, anchor.name, name, qp)
                write_report(folder / "report" / f"{item.report}{length_suffix}.csv", name, rows)
                gops = [average_gop(rows[start:start + gop]) for start in range(0, len(rows), gop)]
                figures[name].append((item, gops))
                mean = average(gops)
                say(f"{anchor.name} QP {qp} {item.report}: {name} {mean.quality:.4f}, {mean.rate:.4f} bpp")
        for name, measured in figures.items():
            _summarise(folder_of(save_dir, anchor.name, name, qp), name, measured, color_suffix + length_suffix)


def _summarise(folder: Path, metric: str, measured: list[tuple[Item, list[Averages]]], suffix: str) -> None:
    datasets = list(dict.fromkeys(item.dataset for item, _ in measured))
    of_dataset = [(dataset, average(gop for item, gops in measured if item.dataset == dataset for gop in gops))
                  for dataset in datasets]
    write_summary(folder / f"brief_summary_{'&'.join(datasets)}{suffix}.txt", metric,
                  [(item.report, average(gops)) for item, gops in measured], of_dataset)

"""`--restore`: what a step starts from, and what it takes along (train_cfg/training_procedure.md).

What carries over is what has the same name and shape; a few steps rename, copy or drop entries first. Names are
those of `TrainedNetwork.entries`, e.g. `CondMotion.mv_encoder.enc_1.0.conv1.weight`.
"""
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from models.codec import Pretrained, Rule
from util.checkpoint import read_file
from util.errors import InputError
from util.training.network import HEAD, TrainedNetwork

Entries = dict[str, Tensor]

FROM_NOTHING = ("scratch", "intra", "neighbour", "buffering", "hytip")
"""`--restore` after which networks that nothing fills are to learn from random weights."""


class Report(NamedTuple):
    """What became of a source.

    Attributes:
        loaded: entries of the model that were filled.
        renamed: old and new name, of loaded entries whose name changed.
        dropped: entries of the source without use.
    """
    loaded: list[str]
    renamed: list[tuple[str, str]]
    dropped: list[str]


def carry_over(network: TrainedNetwork, source: Entries, rule: Rule) -> Report:
    """Fill what has the same name and shape after the rule, and where the codec knows to widen a value."""
    own, widen = dict(network.entries()), network.codec.for_training().widen
    chosen: Entries = {}
    renamed, dropped = [], []
    for old, value in source.items():
        fitting = {name: widen(name, value, own[name].shape) for name in rule(old)
                   if name in own and isinstance(value, Tensor)}
        fitting = {name: fit for name, fit in fitting.items() if fit.shape == own[name].shape}
        if not fitting:
            dropped.append(old)
        for name, fit in fitting.items():
            chosen[name] = fit
            if name != old:
                renamed.append((old, name))
    network.load_entries(chosen)
    return Report(list(chosen), renamed, dropped)


def start_from_checkpoint(network: TrainedNetwork, path: Path, restore: str) -> list[str]:
    """Start a step from the result of the previous one. Returns the report's lines.

    Raises:
        InputError: the file cannot be used, or nothing of it fits.
    """
    rules = network.codec.for_training().rules
    if restore not in rules:
        raise InputError(f"--restore {restore} is not of this model; choose from {', '.join(rules)}")
    rule, content = rules[restore], read_file(path, "the previous step")
    state = content.get("state_dict")
    if not isinstance(state, dict):
        raise InputError(f"{path} has no state_dict; give a checkpoint of a training run, or a released file")
    report = carry_over(network, {network.plain_name(name): value for name, value in state.items()}, rule)
    if not report.loaded:
        raise InputError(f"{path}: nothing of it fits this model; check --restore_exp_key and the configuration files")
    return [f"--restore {restore}: from {path}", *describe(network, [report])]


def start_from_pretrained(network: TrainedNetwork, folder: Path, ssim: bool, from_scratch: bool) -> list[str]:
    """Start from weights of others, which the codec names. Returns the report's lines.

    Raises:
        InputError: a file is missing and `--from_scratch` not given, or one cannot be used.
    """
    lines, reports = [], []
    for source in network.codec.for_training().pretrained(ssim):
        path = Path(folder) / source.file
        if not path.is_file():
            if from_scratch:
                lines.append(f"--from_scratch: {path} is missing; what it would fill starts from random weights")
                continue
            raise InputError(f"{path} is missing; get it from {source.origin}, or train without it with "
                             "--from_scratch")
        content = read_file(path, source.origin)
        flat = content.get("state_dict", content)
        report = carry_over(network, {key.removeprefix("module."): value for key, value in flat.items()}, source.rule)
        if source.network is not None:
            _require_all(network, report, path, source)
        elif not report.loaded:
            raise InputError(f"{path}: nothing of it fits this model; get {source.file} from {source.origin}")
        lines.append(f"from {path}: {len(report.loaded)} entries loaded, {len(report.dropped)} dropped")
        reports.append(report)
    return [f"--restore load_pretrained: from {folder}", *lines, *describe(network, reports)]


def _require_all(network: TrainedNetwork, report: Report, path: Path, source: Pretrained) -> None:
    """A network is taken whole; constants need not be in the file."""
    root = network.roots[source.network]
    constants = {f"{root}.{name}" for name, _ in getattr(network.codec, source.network).named_buffers()}
    for name, _ in network.entries():
        if name.startswith(f"{root}.") and name not in constants and name not in report.loaded:
            raise InputError(f"{path}: entry {name.removeprefix(f'{root}.')} is missing or has another shape; get "
                             f"{path.name} from {source.origin}")


def describe(network: TrainedNetwork, reports: list[Report]) -> list[str]:
    """What was loaded, renamed and dropped, and what is left new, each in a line; modules rather than entries."""
    loaded = {name for report in reports for name in report.loaded}
    roots = network.roots.values()
    moved = {(_module(old, roots), _module(new, roots)) for report in reports for old, new in report.renamed
             if "." in old}
    renamed = {(old, new) for old, new in moved if old != new and not new.endswith(f".{old}")}
    dropped = [name for report in reports for name in report.dropped]
    own = [name for name, _ in network.entries()]
    new = [name for name in own if name not in loaded]
    return [f"  loaded  {len(loaded)} of {len(own)} entries",
            f"  renamed {', '.join(f'{old} to {new}' for old, new in sorted(renamed)) or 'nothing'}",
            f"  dropped {_modules(dropped, [], roots)}",
            f"  new     {_modules(new, own, roots)}"]


def _module(name: str, roots: Collection[str]) -> str:
    """`Residual.context_fusion_net.conv1.weight` -> `Residual.context_fusion_net`; feature adaptors keep their number.

    Names without a root, of DCVC-FM, keep their first part.
    """
    for root in sorted((*roots, HEAD), key=len, reverse=True):
        if name.startswith(f"{root}."):
            rest = name.removeprefix(f"{root}.").split(".")
            return ".".join((root, *rest[:2 if rest[0] == "feature_adaptor" else 1]))
    return name.split(".")[0]


def _modules(names: list[str], all_names: list[str], roots: Collection[str]) -> str:
    """Modules with their number of entries; a network of which every entry is named stands for its modules."""
    def root(name: str) -> str:
        return name.split(".")[0]

    listed, known = Counter(map(root, names)), Counter(map(root, all_names))
    counts = Counter(f"all of {root(name)}" if listed[root(name)] == known[root(name)] else _module(name, roots)
                     for name in names)
    return ", ".join(f"{module} ({count})" for module, count in counts.items()) or "nothing"

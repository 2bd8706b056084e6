"""`--restore`: what a step starts from, and what it takes along (SPEC section 11).

What carries over is what has the same name and shape; a few steps rename, copy or drop entries first. Names are
those of `TrainedNetwork.entries`, e.g. `CondMotion.mv_encoder.enc_1.0.conv1.weight`.
"""
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from util.checkpoint import read_file
from util.errors import InputError
from util.training.network import HEAD, ROOTS, TrainedNetwork, plain_name

Entries = dict[str, Tensor]

DCVC_FM = "cvpr2024_video.pth.tar"
SPYNET = "spy_net-sintel-final.pytorch"
INTRA = {False: "cvpr2023_image_psnr.pth.tar", True: "cvpr2023_image_ssim.pth.tar"}
"""File of the intra codec for PSNR and for MS-SSIM."""

ORIGINS = {DCVC_FM: "the DCVC-FM release of github.com/microsoft/DCVC", SPYNET: "the release of HyTIP's authors",
           INTRA[False]: "the DCVC-DC release of github.com/microsoft/DCVC",
           INTRA[True]: "the DCVC-DC release of github.com/microsoft/DCVC"}


Rule = Callable[[str], tuple[str, ...]]
"""Name of an entry -> the names under which it is offered to the new model; none drops it."""


def keep(name: str) -> tuple[str, ...]:
    return (name,)


def dropping(*prefixes: str) -> Rule:
    """Drop the entries of some modules."""
    def rule(name: str) -> tuple[str, ...]:
        return () if any(name.startswith(f"{prefix}.") for prefix in prefixes) else (name,)
    return rule


def only(root: str) -> Rule:
    """Take one network and nothing else."""
    return lambda name: (name,) if name.startswith(f"{root}.") else ()


def motion_hybrid(name: str) -> tuple[str, ...]:
    """Step 3: the unconditional adaptor gets its hybrid name; what was conditional on explicit memory is dropped."""
    old = "CondMotion.mv_y_prior_fusion_adaptor_temp_0."
    if name.startswith(("CondMotion.mv_y_prior_fusion_adaptor_temp_1.", "CondMotion.PA.")):
        return ()
    return (name.replace(old, "CondMotion.temp_prior_fusion_adaptor_0."),)


def motion_explicit(name: str) -> tuple[str, ...]:
    """The way back from step 3, for ablations: what does not see the remembered latent gets its explicit name."""
    for hybrid, explicit in (("temp_prior_fusion_adaptor_0.", "mv_y_prior_fusion_adaptor_temp_0."),
                             ("prior_fusion.", "PA.")):
        if name.startswith(f"CondMotion.{hybrid}"):
            return (name.replace(hybrid, explicit, 1),)
    return (name,)


def frame_types(name: str) -> tuple[str, ...]:
    """Step 7: every frame type starts with the adaptor of type 0."""
    prefix = "Residual.feature_adaptor."
    if not name.startswith(prefix):
        return (name,)
    number, rest = name.removeprefix(prefix).split(".", 1)
    return tuple(f"{prefix}{n}.{rest}" for n in range(3)) if number == "0" else ()


def context(name: str) -> tuple[str, ...]:
    """Step 9: the likelihood model moves under the context model."""
    return (name.replace("Residual.gaussian_conditional.", "Residual.context_model.gaussian_conditional."),)


def dcvc_fm(name: str) -> tuple[str, ...]:
    """Step 1: entries of DCVC-FM, which have no roots, for the motion and the inter codec."""
    if "spatial_prior" in name or name.startswith(("optic_flow", "feature_adaptor", "y_q_")):
        return ()
    if name.startswith("mv_y_prior_fusion_adaptor_"):
        return (f"CondMotion.{name.replace('fusion_adaptor_', 'fusion_adaptor_temp_', 1)}",)
    if name.startswith("mv_y_prior_fusion."):
        return (f"CondMotion.{name.replace('mv_y_prior_fusion', 'PA', 1)}",)
    return (f"CondMotion.{name}",) if name.startswith("mv") else (f"Residual.{name}",)


RULES: dict[str, Rule] = {
    "CRC_to_MCR": keep,
    "Motion_Hybrid": motion_hybrid,
    "Inter_Hybrid": keep,
    "ReduceMotionBufferSize": dropping("CondMotion.feature_generator", "CondMotion.feature_extractor.fusion"),
    "ReduceInterBufferSize": dropping("Residual.frame_feature_generator", "Residual.feature_adaptor"),
    "FA": frame_types,
    "CTM": keep,
    "context": context,
    "Variable": keep,
    "LongSequence": keep,
    "intra": only(ROOTS["intra"]),
    "same": keep,
    "explicit": motion_explicit}
"""`--restore` -> what happens to the entries of the step before; the last three are not of the released recipe."""

FROM_NOTHING = ("scratch", "intra")
"""`--restore` after which networks that nothing fills are to learn from random weights."""

RESTORES = ("HyTIP", "resume", "load_pretrained", "scratch", *RULES)


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
    """Fill what has the same name and shape after the rule."""
    own = dict(network.entries())
    chosen: Entries = {}
    renamed, dropped = [], []
    for old, value in source.items():
        names = [name for name in rule(old) if name in own and isinstance(value, Tensor)
                 and own[name].shape == value.shape]
        if not names:
            dropped.append(old)
        for name in names:
            chosen[name] = value
            if name != old:
                renamed.append((old, name))
    network.load_entries(chosen)
    return Report(list(chosen), renamed, dropped)


def start_from_checkpoint(network: TrainedNetwork, path: Path, restore: str) -> list[str]:
    """Start a step from the result of the previous one. Returns the report's lines.

    Raises:
        InputError: the file cannot be used, or nothing of it fits.
    """
    content = read_file(path, "the previous step")
    state = content.get("state_dict")
    if not isinstance(state, dict):
        raise InputError(f"{path} has no state_dict; give a checkpoint of a training run, or a released file")
    report = carry_over(network, {plain_name(name): value for name, value in state.items()}, RULES[restore])
    if not report.loaded:
        raise InputError(f"{path}: nothing of it fits this model; check --restore_exp_key and the configuration files")
    return [f"--restore {restore}: from {path}", *describe(network, [report])]


def start_from_pretrained(network: TrainedNetwork, folder: Path, ssim: bool, from_scratch: bool) -> list[str]:
    """Step 1: DCVC-FM for the codecs, SPyNet, and the intra codec of DCVC-DC. Returns the report's lines.

    Raises:
        InputError: a file is missing and `--from_scratch` not given, or one cannot be used.
    """
    parts = {DCVC_FM: (dcvc_fm, False), SPYNET: (lambda name: (f"{ROOTS['motion_estimation']}.{name}",), True),
             INTRA[ssim]: (lambda name: (f"{ROOTS['intra']}.{name}",), True)}
    lines, reports = [], []
    for name, (rule, whole) in parts.items():
        path = Path(folder) / name
        if not path.is_file():
            if from_scratch:
                lines.append(f"--from_scratch: {path} is missing; what it would fill starts from random weights")
                continue
            raise InputError(f"{path} is missing; get it from {ORIGINS[name]}, or train without it with "
                             "--from_scratch")
        content = read_file(path, ORIGINS[name])
        flat = content.get("state_dict", content)
        report = carry_over(network, {key.removeprefix("module."): value for key, value in flat.items()}, rule)
        if whole:
            _require_all(network, report, path, rule)
        elif not report.loaded:
            raise InputError(f"{path}: nothing of it fits this model; get {name} from {ORIGINS[name]}")
        lines.append(f"from {path}: {len(report.loaded)} entries loaded, {len(report.dropped)} dropped")
        reports.append(report)
    return [f"--restore load_pretrained: from {folder}", *lines, *describe(network, reports)]


def _require_all(network: TrainedNetwork, report: Report, path: Path, rule: Rule) -> None:
    """SPyNet and the intra codec are taken whole; SPyNet's constants need not be in the file."""
    root = rule("x")[0].split(".")[0]
    constants = {f"{root}.mean", f"{root}.std"}
    for name, _ in network.entries():
        if name.startswith(f"{root}.") and name not in constants and name not in report.loaded:
            raise InputError(f"{path}: entry {name.removeprefix(f'{root}.')} is missing or has another shape; get "
                             f"{path.name} from {ORIGINS[path.name]}")


def describe(network: TrainedNetwork, reports: list[Report]) -> list[str]:
    """What was loaded, renamed and dropped, and what is left new, each in a line; modules rather than entries."""
    loaded = {name for report in reports for name in report.loaded}
    renamed = {(_module(old), _module(new)) for report in reports for old, new in report.renamed
               if "." in old and _module(old) != _module(new) and not _module(new).endswith(f".{_module(old)}")}
    dropped = [name for report in reports for name in report.dropped]
    own = [name for name, _ in network.entries()]
    new = [name for name in own if name not in loaded]
    return [f"  loaded  {len(loaded)} of {len(own)} entries",
            f"  renamed {', '.join(f'{old} to {new}' for old, new in sorted(renamed)) or 'nothing'}",
            f"  dropped {_modules(dropped, [])}",
            f"  new     {_modules(new, own)}"]


def _module(name: str) -> str:
    """`Residual.context_fusion_net.conv1.weight` -> `Residual.context_fusion_net`; feature adaptors keep their number.

    Names without a root, of DCVC-FM, keep their first part.
    """
    root, *rest = name.split(".")
    if root not in (*ROOTS.values(), HEAD):
        return root
    return ".".join((root, *rest[:2 if rest[0] == "feature_adaptor" else 1]))


def _modules(names: list[str], all_names: list[str]) -> str:
    """Modules with their number of entries; a network of which every entry is named stands for its modules."""
    def root(name: str) -> str:
        return name.split(".")[0]

    listed, known = Counter(map(root, names)), Counter(map(root, all_names))
    counts = Counter(f"all of {root(name)}" if listed[root(name)] == known[root(name)] else _module(name)
                     for name in names)
    return ", ".join(f"{module} ({count})" for module, count in counts.items()) or "nothing"

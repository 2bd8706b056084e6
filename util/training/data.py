"""The training clips of each phase, and whether they are long and large enough for it."""
from collections.abc import Iterable
from pathlib import Path

from dataloader.clips import ClipSet, find_clips, some_shapes
from util.errors import InputError
from util.training.options import DEFAULT_DATASET, TrainingOptions
from util.training.phases import Phase


def clips_of(options: TrainingOptions, phases: Iterable[Phase]) -> dict[str, ClipSet]:
    """The clips of each phase, by its name.

    Raises:
        InputError: there are none, or none that a phase can use; before the first of them begins.
    """
    found: dict[tuple[str, ...], ClipSet] = {}
    for phase in phases:
        if phase.clips not in found:
            found[phase.clips] = find_clips(options.train_dataset or DEFAULT_DATASET, root_of(options), phase.clips)
    shapes = {parts: some_shapes(clips) for parts, clips in found.items()}
    for phase in phases:
        _check(options, phase, shapes[phase.clips])
    return {phase.name: found[phase.clips] for phase in phases}


def root_of(options: TrainingOptions) -> Path:
    """Where the clips are."""
    return options.train_data or options.data


def _check(options: TrainingOptions, phase: Phase, shapes: list[tuple[int, int, int]]) -> None:
    frames, side = phase.p_frames + 1, phase.crop_size or options.crop_size
    if not shapes or any(count >= frames and min(size) >= side for count, *size in shapes):
        return
    count, height, width = max(shapes, key=lambda shape: (min(shape[1:]), shape[0]))
    cure = "--crop_size" if phase.crop_size is None else f"crop_size in {options.train_conf}"
    wanted = f"{frames} frame{'' if frames == 1 else 's'} of {side}x{side}"
    raise InputError(f"phase {phase.name} takes {wanted} out of a clip, and none of the clips below {root_of(options)} "
                     f"that were looked at has them (one has {count} of {width}x{height}); give longer or larger "
                     f"clips, or lower {cure}")

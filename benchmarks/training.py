"""Steps per second and peak memory of training, for the last phase of chosen steps: python benchmarks/training.py

On a GPU the batch, the clips and the crop are the released ones; `--accumulate` and `--amp` show how they fit a smaller
card. Without a GPU the batch and the crop are reduced, and the table says so. Random clips and weights: the time does
not depend on them. Columns: a line per step, tab-separated.
"""
import argparse
import math
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
warnings.filterwarnings("ignore", message=r".*torch\.jit.*")

import torch  # noqa: E402
from tqdm import tqdm  # noqa: E402

from dataloader.clips import Sample  # noqa: E402
from dataloader.sampling import MicroBatch  # noqa: E402
from models.catalogue import build_codec, find_model  # noqa: E402
from models.codec import RATES  # noqa: E402
from util.arithmetic import tf32_in_convolutions  # noqa: E402
from util.evaluation.complexity import multiply_adds  # noqa: E402
from util.training.checkpoints import Checkpoints, Progress  # noqa: E402
from util.training.distributed import Team  # noqa: E402
from util.training.network import TrainedNetwork  # noqa: E402
from util.training.options import TrainingOptions  # noqa: E402
from util.training.phases import TRAIN_CFG, Phase, read_phases  # noqa: E402
from util.training.schedule import Step, read_schedule  # noqa: E402
from util.training.trainer import Setup, Trainer  # noqa: E402

COLUMNS = ("step", "phase", "p_frames", "batch", "crop", "accumulate", "amp", "steps_per_s", "clips_per_s", "peak_GiB",
           "device")


def build(step: Step, folder: Path = ROOT / "config") -> TrainedNetwork:
    parts = {"intra": "Intra.yml", "motion_estimation": "MENet.yml", "motion": step.cond_motion_coder_conf,
             "inter": step.residual_coder_conf}
    codec = build_codec(find_model(), {name: folder / file for name, file in parts.items()})
    return TrainedNetwork(codec, step.Pretrain_frame_feature)


def measure(step: Step, phase: Phase, device: torch.device, arguments: argparse.Namespace,
            folder: Path = ROOT / "config") -> dict:
    """Time the trainer's own steps, from a batch of the loader to its report. `macs` counts their multiply-adds.

    Args:
        arguments: the flags below.
        folder: of the configuration files.
    """
    on_gpu = device.type == "cuda"
    batch = arguments.batch_size or (phase.batch_size if on_gpu else 1)
    crop = arguments.crop_size or (256 if on_gpu else 64)
    torch.manual_seed(0)
    options = TrainingOptions(
        accumulate=arguments.accumulate, amp=arguments.amp, crop_size=crop, save_minutes=math.inf,
        channels_last=arguments.channels_last, FGOP_Inter_XtRNN=step.FGOP_Inter_XtRNN,
        frame_weight=step.frame_weight or (), rate_gop_size=step.rate_gop_size,
        index_map_training=step.index_map_training or TrainingOptions.index_map_training)
    phase = replace(phase, amp=None, crop_size=None, batch_size=batch)
    setup = Setup(options, build(step, folder), (phase,), {}, Checkpoints(Path("nowhere"), "benchmark"), None, 3,
                  Progress())
    trainer = Trainer(setup, Team(device.type))
    trainer.begin(phase)
    bar = tqdm(disable=True)
    parts = _parts(batch, phase.p_frames + 1, crop, arguments.accumulate, pinned=on_gpu)

    def run_steps(count: int) -> None:
        for _ in range(count):
            sums = None
            for n, sample in enumerate(parts, start=1):
                micro = MicroBatch(0, (), real=True, last=n == len(parts))
                sums = trainer.accumulate(micro, sample, batch, sums)
            trainer.update(sums, bar)
        list(trainer.steps.drain())

    with tf32_in_convolutions(arguments.tf32 == "on"):
        macs = multiply_adds(lambda: run_steps(1))                     # warms up, and makes Adam's state
        trainer.team.peak_memory()
        started = time.perf_counter()
        run_steps(arguments.repeat)
        seconds = (time.perf_counter() - started) / arguments.repeat
    peak = torch.cuda.max_memory_allocated() / 2 ** 30 if on_gpu else _peak_of_process()
    return {"p_frames": phase.p_frames, "batch": batch, "crop": crop, "steps_per_s": 1 / seconds,
            "clips_per_s": batch / seconds, "peak_GiB": peak, "macs": macs}


def _parts(batch: int, frames: int, crop: int, accumulate: int, pinned: bool) -> list[Sample]:
    """The micro-batches of a step, of random clips, as the loader delivers them."""
    places = torch.arange(batch)
    samples = [Sample(torch.randint(256, (len(part), frames, 3, crop, crop), dtype=torch.uint8), part * RATES // batch,
                      part, ()) for part in places.chunk(accumulate)]
    if not pinned:
        return samples
    return [Sample(*(x.pin_memory() for x in sample[:3]), sample.corrupt) for sample in samples]


def _peak_of_process() -> float:
    """Of the whole process so far, in GiB."""
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 9, 12], help="of train_cfg/schedule.yml")
    parser.add_argument("--batch_size", type=int, help="default: the phase's on a GPU, 1 on a CPU")
    parser.add_argument("--crop_size", type=int, help="default: 256 on a GPU, 64 on a CPU")
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--amp", choices=["off", "bfloat16"], default="off")
    parser.add_argument("--tf32", choices=["on", "off"], default="on")
    parser.add_argument("--channels_last", action="store_true")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    device = torch.device(arguments.device)
    torch.backends.cudnn.benchmark = True
    steps = read_schedule(TRAIN_CFG / "schedule.yml")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print("\t".join(COLUMNS))
    for number in arguments.steps:
        step = steps[number - 1]
        phase = read_phases(step.train_conf)[-1]
        try:
            row = measure(step, phase, device, arguments)
        except torch.OutOfMemoryError:
            row = dict.fromkeys(COLUMNS, "") | {"p_frames": phase.p_frames, "steps_per_s": "out of memory"}
            torch.cuda.empty_cache()
        row |= {"step": number, "phase": phase.name, "accumulate": arguments.accumulate, "amp": arguments.amp,
                "device": name}
        print("\t".join(_shown(row[column]) for column in COLUMNS), flush=True)


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()

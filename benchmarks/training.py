"""Steps per second and peak memory of training, for the last phase of chosen steps: python benchmarks/training.py

On a GPU the batch, the clips and the crop are the released ones; `--accumulate` and `--amp` show how they fit a smaller
card. Without a GPU the batch and the crop are reduced, and the table says so. Random clips and weights: the time does
not depend on them. Columns: a line per step, tab-separated.
"""
import argparse
import sys
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
warnings.filterwarnings("ignore", message=r".*torch\.jit.*")

import torch  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from models.catalogue import build_codec, find_model  # noqa: E402
from util.training.clip_loss import ClipLoss  # noqa: E402
from util.training.network import TrainedNetwork  # noqa: E402
from util.training.schedule import TRAIN_CFG, Phase, Step, read_phases, read_schedule  # noqa: E402

COLUMNS = ("step", "phase", "p_frames", "batch", "crop", "accumulate", "amp", "steps_per_s", "clips_per_s", "peak_GiB",
           "device")


def build(step: Step, folder: Path = ROOT / "config") -> TrainedNetwork:
    parts = {"intra": "Intra.yml", "motion_estimation": "MENet.yml", "motion": step.cond_motion_coder_conf,
             "inter": step.residual_coder_conf}
    codec = build_codec(find_model(), {name: folder / file for name, file in parts.items()})
    return TrainedNetwork(codec, step.Pretrain_frame_feature)


def measure(step: Step, phase: Phase, device: torch.device, arguments: argparse.Namespace,
            folder: Path = ROOT / "config") -> dict:
    """Time whole optimizer steps: forward, backward, clipping, Adam. `macs` counts their multiply-adds.

    Args:
        arguments: the flags below.
        folder: of the configuration files.
    """
    on_gpu = device.type == "cuda"
    batch = arguments.batch_size or (phase.batch_size if on_gpu else 1)
    crop = arguments.crop_size or (256 if on_gpu else 64)
    torch.manual_seed(0)
    network = build(step, folder).to(device).train()
    parameters = list(network.select(phase).values())
    types = step.index_map_training or (0,) * (phase.p_frames + 1)
    plan = phase.stage_plan(variable_rate=network.codec.config.variable_rate, through_references=step.FGOP_Inter_XtRNN,
                            frame_types=tuple(types[n % min(8, len(types))] for n in range(phase.p_frames + 1)))
    module = ClipLoss(network, plan, phase.loss(step.frame_weight or ()), anchor=3, quality_level=5,
                      amp=arguments.amp == "bfloat16")
    optimizer = torch.optim.Adam(parameters, phase.lr)
    frames = torch.randint(256, (batch, phase.p_frames + 1, 3, crop, crop), dtype=torch.uint8, device=device)
    places = torch.arange(batch, device=device)

    def run_step() -> None:
        for part in places.chunk(arguments.accumulate):
            loss, _ = module(frames[part], part * 64 // batch, part)
            (loss.sum() / batch).backward()
        torch.nn.utils.clip_grad_value_(parameters, 5)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    with FlopCounterMode(display=False) as counter:
        run_step()                                                     # warms up, and makes Adam's state
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    for _ in range(arguments.repeat):
        run_step()
    if on_gpu:
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / arguments.repeat
    peak = torch.cuda.max_memory_allocated() / 2 ** 30 if on_gpu else _peak_of_process()
    return {"p_frames": phase.p_frames, "batch": batch, "crop": crop, "steps_per_s": f"{1 / seconds:.3g}",
            "clips_per_s": f"{batch / seconds:.3g}", "peak_GiB": f"{peak:.2f}",
            "macs": counter.get_total_flops() / 2}


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
        print("\t".join(str(row[column]) for column in COLUMNS), flush=True)


if __name__ == "__main__":
    main()

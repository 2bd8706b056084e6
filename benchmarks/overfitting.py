"""How well codecs of the DCVC-HEM family learn one moving clip by heart, at tiny widths, for equal updates.

    python -m benchmarks.overfitting                                     DCVC-HEM, ST-XCT, and DCVC-MIP's rows
    python -m benchmarks.overfitting --codecs dcvc-hem st-xct --seeds 0 1 2 --updates 300

Every codec starts from the same weights, DCVC-HEM's of that seed, wherever it has an entry of that name and shape; the
rest is its own start. The clip is a synthetic one of three frames that moves; the first is given, the others are
P-frames with gradients through the references. Columns: means over the last fifth of the updates.
"""
import argparse
import sys
import time
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from benchmarks.report import table
from models.catalogue import build_codec
from models.codec import FrameHeader, VideoCodec
from models.entropy.training import SampleNoise, TrainingEstimator, round_straight_through
from util.arithmetic import choose_arithmetic
from util.errors import InputError
from util.evaluation.metrics import psnr_of_error
from util.program import Parser, exit_status

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))
from helpers import tiny_model, variants  # noqa: E402
from seeded import seeded_video  # noqa: E402

CODECS = ("dcvc-hem", "st-xct/all", "st-xct/all_depthwise", "dcvc-mip/B", "dcvc-mip/C", "dcvc-mip/D", "dcvc-mip/E")
QP = 42
LAMBDA = 0.02 * 255 ** 2
TAME = 0.7
"""Of the kernels that all codecs share: as they are drawn, activations grow by 14 orders of magnitude here."""


def fresh(name: str, seed: int) -> VideoCodec:
    """A codec to train, with DCVC-HEM's weights of that seed where they fit."""
    made = []
    for kind in ("dcvc-hem", name):
        torch.manual_seed(seed)
        codec = build_codec(tiny_model(kind))
        codec.for_training().initialise(codec)
        made.append(codec)
    own = made[1].state_dict()
    own.update({key: value * (TAME if value.dim() == 4 else 1) for key, value in made[0].state_dict().items()
                if key in own and own[key].shape == value.shape})
    made[1].load_state_dict(own)
    return made[1]


def moving_clip(frames: int, height: int, width: int) -> Tensor:
    """T 3 H W in [0, 1]: a window that moves by (2, 3) pixels per frame over a still picture."""
    picture = seeded_video(1, height + 2 * frames, width + 3 * frames, 7)[0]
    return torch.stack([picture[:, 2 * n:2 * n + height, 3 * n:3 * n + width] for n in range(frames)])


def learn(codec: VideoCodec, clip: Tensor, updates: int, rate: float) -> list[tuple[float, float, float, float]]:
    """Loss, motion bits and other bits per pixel, and mean squared error of each update."""
    networks = [value for name, value in codec.named_parameters() if not name.startswith(codec.intra_network)]
    optimizer = torch.optim.Adam(networks, lr=rate)
    pixels, size, history = clip[0, 0].numel(), tuple(clip.shape[-2:]), []
    for update in range(updates):
        noise, memory = SampleNoise(torch.tensor([update])), codec.remember_frame(clip[:1])
        motion, rest, error = torch.zeros(()), torch.zeros(()), torch.zeros(())
        for frame in clip[1:].split(1):
            coder = TrainingEstimator(noise, round_straight_through)
            coded = codec.code_frame(coder, frame, memory, FrameHeader(intra=False, qp=QP, size=size))
            motion = motion + sum(bits.sum() for name, bits in coder.bits.items() if name.startswith("m"))
            rest = rest + sum(bits.sum() for name, bits in coder.bits.items() if not name.startswith("m"))
            error = error + (coded.frame - frame).square().mean()
            memory = coded.memory
        count = len(clip) - 1
        motion, rest, error = motion / pixels / count, rest / pixels / count, error / count
        loss = motion + rest + LAMBDA * error
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(networks, 1.0)
        optimizer.step()
        history.append((loss.item(), motion.item(), rest.item(), error.item()))
    return history


def main() -> None:
    parser = Parser(prog="benchmarks.overfitting", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codecs", nargs="+", default=CODECS, metavar="NAME",
                        choices=("dcvc-hem", "dcvc-mip", "st-xct", *variants()))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--rate", type=float, default=1e-3, help="of learning")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.updates < 1:
        raise InputError(f"--updates {arguments.updates} must be at least 1")
    choose_arithmetic("cpu", arguments.threads)
    clip, rows = moving_clip(3, 64, 64), []
    for seed in arguments.seeds:
        for name in arguments.codecs:
            started = time.monotonic()
            history = learn(fresh(name, seed), clip, arguments.updates, arguments.rate)
            last = history[-max(len(history) // 5, 1):]
            loss, motion, rest, error = (fmean(column) for column in zip(*last))
            rows.append([name, seed, f"{history[0][0]:.3f}", f"{loss:.4f}", f"{motion:.4f}", f"{rest:.4f}",
                         f"{psnr_of_error(error):.2f}", f"{time.monotonic() - started:.0f}"])
            print(*rows[-1], file=sys.stderr, flush=True)
    print(table(["codec", "seed", "first loss", "loss", "motion bpp", "other bpp", "PSNR", "s"], rows))


if __name__ == "__main__":
    sys.exit(exit_status("benchmarks.overfitting", main))

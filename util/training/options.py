"""The flags of training, and the dataclass that carries them."""
import argparse
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.catalogue import DEFAULT
from util.choices import CLIP_SETS, FRAME_TYPES
from util.cli.flags import Group
from util.errors import InputError

DEFAULT_DATASET = "Vimeo-90k"

RESTORES = ("HyTIP", "resume", "load_pretrained", "scratch", "CRC_to_MCR", "Motion_Hybrid", "Inter_Hybrid",
            "ReduceMotionBufferSize", "ReduceInterBufferSize", "FA", "CTM", "context", "Variable", "LongSequence",
            "intra", "same", "neighbour", "buffering", "base")
"""Starting points: the first four of every codec, the others as its `Training.rules` have them."""

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What a training run may be told. Names are those of the flags.

    Attributes:
        iframe_quality: quality level of the I-frames of single-rate models, 2..5; None takes `quality_level`.
        config_dir: where `--schedule` finds the configuration files.
        results: folder of the experiments.
        batch_size, epoch_ratio, end_epoch: shorten what the phases say.
        accumulate: micro-batches per optimizer step and process.
        num_workers: loader processes; None: none on a CPU, the machine's cores on a GPU.
        ema: decay of the average of the weights (averaging.py); 0 keeps none.
        keep: checkpoints of epochs that stay, the newest; None: all.
        max_skipped: steps in a row without update after which the run gives up.
        weights: with `--restore HyTIP` the model's weights; with starting points that need an experiment, and without
            the name of one, what they start from.
        changes: other values for some parameters of the model.
    """
    cond_motion_coder_conf: Path | None = None
    residual_coder_conf: Path | None = None
    intra_coder_conf: Path | None = None
    motion_estimation_conf: Path | None = None
    config_dir: Path = REPOSITORY / "config"
    train_conf: Path | None = None
    schedule: Path | None = None
    dry_run: bool = False
    data: Path = Path("data")
    train_data: Path | None = None
    valid_data: Path | None = None
    train_dataset: str | None = None
    experiment_name: str = "HyTIP"
    project_name: str = "HyTIP"
    results: Path = Path("results")
    restore: str = "HyTIP"
    restore_exp_key: str | None = None
    restore_exp_epoch: int | None = None
    pretrained: Path = REPOSITORY / "models"
    model: str = DEFAULT
    weights: Path | None = None
    from_scratch: bool = False
    quality_level: int = 5
    iframe_quality: int | None = None
    ssim: bool = False
    changes: Mapping[str, Any] | None = None
    index_map_training: tuple[int, ...] = (0, 1, 0, 2, 0, 2, 0, 2)
    index_map: tuple[int, ...] = (0, 1, 0, 2, 0, 2, 0, 2)
    rate_gop_size: int = 8
    reset_interval: int = 32
    frame_weight: tuple[float, ...] = ()
    feature_channel: int | None = None
    FGOP_Inter_XtRNN: bool = False
    Pretrain_frame_feature: bool = False
    end_epoch: int | None = None
    epoch_ratio: float = 1.0
    batch_size: int | None = None
    accumulate: int = 1
    crop_size: int = 256
    num_workers: int | None = None
    seed: int = 0
    ema: float = 0.0
    keep: int | None = None
    amp: str = "off"
    tf32: str = "on"
    channels_last: bool = False
    device: str = "auto"
    gpus: int = 1
    threads: int | None = None
    save_minutes: float = 15.0
    max_skipped: int = 20
    no_sanity: bool = False
    debug: bool = False
    test_dataset: tuple[str, ...] = ("HEVC-B",)
    test_seqs: tuple[str, ...] = ()
    gop: int = 32
    color_transform: str = "BT601"
    test_crop: bool = False
    crop_factor: int = 64
    align_factor: int | None = None

    @classmethod
    def from_namespace(cls, arguments: argparse.Namespace) -> "TrainingOptions":
        """The options among the parsed flags; a flag that is absent or None keeps its default.

        Raises:
            InputError: a value outside its bounds.
        """
        values = {}
        for name in (entry.name for entry in dataclasses.fields(cls)):
            value = getattr(arguments, name, None)
            if value is not None:
                values[name] = tuple(value) if isinstance(value, list) else value
        if isinstance(values.get("iframe_quality"), tuple):        # the command line takes several, for tests
            values["iframe_quality"] = values["iframe_quality"][0]
        options = cls(**values)
        options.check()
        return options

    def check(self) -> None:
        """Bounds of single values."""
        for flag, least in (("accumulate", 1), ("crop_size", 16), ("num_workers", 0), ("max_skipped", 1),
                            ("batch_size", 1), ("end_epoch", 1), ("rate_gop_size", 1), ("gop", 1), ("seed", 0),
                            ("keep", 1)):
            value = getattr(self, flag)
            if value is not None and value < least:
                raise InputError(f"--{flag} {value} must be at least {least}")
        if not 0 <= self.ema < 1:
            raise InputError(f"--ema {self.ema:g} is outside 0..1; 0.999 averages over about the last thousand steps, "
                             "0 keeps no average")
        if self.restore not in RESTORES:
            raise InputError(f"--restore {self.restore} is unknown; choose from {', '.join(RESTORES)}")
        if self.train_dataset not in (None, *CLIP_SETS):
            raise InputError(f"--train_dataset {self.train_dataset} is unknown; choose from {', '.join(CLIP_SETS)}")
        for entry in self.index_map_training:
            if not 0 <= entry < FRAME_TYPES:
                raise InputError(f"--index_map_training entry {entry} is outside 0..{FRAME_TYPES - 1}")

    def frame_types(self, frames: int) -> tuple[int, ...]:
        """The type of each frame of a clip: `index_map_training`, its index taken modulo rate_gop_size.

        Raises:
            InputError: the map is too short.
        """
        needed = min(frames, self.rate_gop_size)
        if len(self.index_map_training) < needed:
            raise InputError(f"--index_map_training has {len(self.index_map_training)} entries; clips of {frames} "
                             f"frames with --rate_gop_size {self.rate_gop_size} need {needed}")
        return tuple(self.index_map_training[n % self.rate_gop_size] for n in range(frames))


def training_group() -> Group:
    """The flags of training; those that it shares with coding are declared there (util/cli/groups.py)."""
    group = Group("training", ("train",))
    add, default = group.add_argument, TrainingOptions()
    add("--train_conf", type=Path, metavar="FILE", help="train: the phases of one step, e.g. train_cfg/Add_CTM.yml")
    add("--schedule", type=Path, metavar="FILE",
        help="train a whole recipe, step after step, e.g. train_cfg/schedule.yml; goes on where it was stopped")
    add("--dry_run", action="store_true", help="print the phases, without data or GPU")
    add("--config_dir", type=Path, default=default.config_dir, metavar="DIR",
        help="where --schedule finds the configuration files")
    add("--train_dataset", choices=CLIP_SETS,
        help="what to train on; default Vimeo-90k, or what the recipe's step says")
    add("--train_data", type=Path, metavar="DIR", help="where the training data is; default: as -data")
    add("--valid_data", type=Path, metavar="DIR",
        help="validate on every folder of frame_{n}.png below DIR, not on --test_dataset")
    add("--crop_size", type=int, default=default.crop_size, metavar="N", help="side of the random crop")
    add("--results", type=Path, default=default.results, metavar="DIR", help="folder of the experiments")
    _add_start(add, default)
    _add_loss(add, default)
    _add_run(add, default)
    return group


def _add_start(add, default: TrainingOptions) -> None:
    add("--restore", default=default.restore, metavar="POINT",
        help=f"what training starts from: {', '.join(RESTORES)} (train_cfg/training_procedure.md)")
    add("--restore_exp_key", metavar="NAME", help="experiment that --restore takes its weights from")
    add("--restore_exp_epoch", type=int, metavar="N", help="epoch of that experiment; default: the newest")
    add("--pretrained", type=Path, default=default.pretrained, metavar="DIR",
        help="holds the DCVC-FM, SPyNet and intra weights for --restore load_pretrained")
    add("--from_scratch", action="store_true", help="start without those of them that are missing")


def _add_loss(add, default: TrainingOptions) -> None:
    add("--quality_level", "-q", type=int, default=default.quality_level, metavar="L",
        help="2 to 5: lambda of the loss")
    add("--index_map_training", type=int, nargs="+", default=list(default.index_map_training), metavar="T",
        help="frame type 0..2 of each frame of a clip")
    add("--frame_weight", type=float, nargs="+", metavar="W", help="weight of each frame's distortion")
    add("--feature_channel", type=int, metavar="N", help="overrides the inter configuration")
    add("--FGOP_Inter_XtRNN", action="store_true",
        help="let gradients through the reference frame in fullgop phases without RNN")
    add("--Pretrain_frame_feature", action="store_true", help="a head that makes a frame of the implicit feature")


def _add_run(add, default: TrainingOptions) -> None:
    add("--end_epoch", type=int, metavar="N", help="stop after this epoch")
    add("--epoch_ratio", type=float, default=default.epoch_ratio, metavar="R",
        help="multiply the number of epochs of each phase, at least one each")
    add("--batch_size", type=int, metavar="N", help="instead of the phases' own")
    add("--accumulate", type=int, default=default.accumulate, metavar="N",
        help="split each process's part of a batch to fit a smaller card; the result stays the same")
    add("--ema", type=float, default=default.ema, metavar="DECAY",
        help="keep an exponential moving average of the weights, e.g. 0.999: it is what is validated, exported and "
             "evaluated; default 0: none")
    add("--keep", type=int, metavar="N", help="keep the checkpoints of the newest N epochs only; default: all")
    add("--tf32", choices=["on", "off"], default=default.tf32,
        help="let float32 convolutions of training take TF32 on CUDA, as PyTorch does; validation never does")
    add("--amp", choices=["off", "bfloat16"], default=default.amp, help="mixed precision")
    add("--channels_last", action="store_true", help="store activations channels-last: faster on CPUs")
    add("--seed", type=int, default=default.seed, metavar="N", help="of all random numbers")
    add("--save_minutes", type=float, default=default.save_minutes, metavar="M",
        help="save this often between epochs; 0: after every step")
    add("--max_skipped", type=int, default=default.max_skipped, metavar="N",
        help="give up after so many steps in a row with a loss that is NaN or above 10000")
    add("--no_sanity", action="store_true", help="no trial of the validation before training")
    add("--debug", action="store_true", help="two batches per epoch, with PyTorch's anomaly detection")
    add("--project_name", default=default.project_name, help="accepted for the released command lines")

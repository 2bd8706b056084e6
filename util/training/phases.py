"""The phases of a training step, as their file says (train_cfg/training_procedure.md).

A file of `--train_conf` maps phase names to settings, in order, in YAML or in the released JSON form. YAML may have
`defaults` for all phases, which then stand under `phases`:

    defaults: {lr: 1.0e-4}
    phases:
      trainAll: {end_epoch: 5, stage: fullgop, RNN: 0, batch_size: 10, loss_on: {R: rate, D: distortion}}
"""
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from util.errors import InputError
from util.training.losses import Loss, LossExpression
from util.training.stages import ALONE, RATES_OF, STAGES, StagePlan
from util.training.steps import HUGE_LOSS
from util.yaml_file import read_named

TRAIN_CFG = Path(__file__).resolve().parents[2] / "train_cfg"
MODES = ("motion", "residual")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase of a step: an Adam of its own, over a range of epochs.

    Attributes:
        first_epoch, last_epoch: inclusive, from 1.
        stage, mode, rnn: how clips are coded (util/training/stages.py); `mode` for 2Pframes, `rnn` 0 or 1 or None.
        max_p_frames: P-frames per clip in the stages that do not fix them.
        truncate: P-frames through which gradients flow back, at most: windows of so many in the clip (truncated
            backpropagation through time, Williams and Peng 1990). Through many frames they may explode.
        late: P-frames, at most, that are coded without gradients before those of the clip, which is played back and
            forth for it; how many is random, and the same for all clips of an optimizer step. So a codec learns what
            becomes of frames in a long group, at a third of the cost of frames with gradients. Stage fullgop.
        batch_size: clips per optimizer step, over all processes.
        rate, distortion: the two sides of `loss_on`.
        rate_of: `noise`: bits of latents with additive noise, as in the release; `symbols`: of rounded latents, without
            the bits that noise adds where nearly all symbols are 0 (models/entropy/training.py).
        train_len: fraction of the data set that makes an epoch; a fresh random part each time.
        frozen: networks (`MENet`) or parts of them (`Residual.feature_extractor`) that are not trained.
        lr_inputs: inputs per output of a convolution or linear layer up to which its weights have the whole learning
            rate; with more it falls in proportion, as a step moves the output by about rate x inputs (the width scaling
            of Adam in Yang et al., Tensor Programs V, 2021, Table 3). None: all have the same rate.
        reactivated: (network, substring) pairs: parameters that are trained although `frozen` names them.
        milestones: epochs of the phase after which the learning rate is multiplied by `gamma`.
        final_lr: where the learning rate ends, falling from `lr` step by step along half a cosine.
        warmup_steps: optimizer steps over which the learning rate first rises to that.
        clip_norm: bound of the norm of all gradients together, instead of one on each value.
        skip_above: a step with a larger loss is left out; random weights may begin far above the usual bound.
        steps_per_epoch: optimizer steps that make an epoch, however many clips there are; instead of `train_len`.
        crop_size, amp: instead of the flags; `amp` off or bfloat16.
        clips: folders below the training data to take clips from, each as often as the others; all where empty.
        still: share of the samples that are a frame again and again; what stands still shall cost next to nothing.
        lambdas: of QP 0 and QP 63 of variable-rate models, or of more QPs at equal distances, instead of those of the
            quality level.
        balance: each sample's loss counts (middle lambda / its lambda) ** balance times: with 0 high rates weigh most,
            as their losses are larger; with 0.5 all rates weigh much the same. Variable-rate models.
        validate: whether epochs end with a validation; it means nothing while networks are still missing.
    """
    name: str
    first_epoch: int
    last_epoch: int
    stage: str
    mode: str | None = None
    rnn: int | None = None
    max_p_frames: int = 6
    truncate: int | None = None
    late: int = 0
    batch_size: int
    lr: float
    rate: LossExpression
    distortion: LossExpression
    rate_of: str = "noise"
    train_len: float = 1.0
    frozen: tuple[str, ...] = ()
    reactivated: tuple[tuple[str, str], ...] = ()
    lr_inputs: int | None = None
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    final_lr: float | None = None
    warmup_steps: int = 0
    clip_norm: float | None = None
    skip_above: float = HUGE_LOSS
    steps_per_epoch: int | None = None
    crop_size: int | None = None
    amp: str | None = None
    clips: tuple[str, ...] = ()
    still: float = 0.0
    lambdas: tuple[float, ...] | None = None
    balance: float = 0.0
    validate: bool = True

    @property
    def p_frames(self) -> int:
        """P-frames that are coded of each clip."""
        return {"intra": 0, "flow": 1, "1Pframe": 1, "2Pframes": 2}.get(self.stage, self.max_p_frames)

    @property
    def random_start(self) -> bool:
        """Whether the stage starts anywhere in a clip and runs in either direction."""
        return self.stage in ("1Pframe", "2Pframes", "intra", "flow")

    def lr_at(self, epoch: int, step: int = 0, steps: int = 1) -> float:
        """The learning rate, without a state to lose: PyTorch's MultiStepLR, or half a cosine down to `final_lr`.

        Args:
            step: of the epoch, from 0; warm-up and cosine go on within epochs.
            steps: of the whole epoch.
        """
        past = (epoch - self.first_epoch) * steps + step
        rise = min(1.0, (past + 1) / (self.warmup_steps + 1))
        if self.final_lr is not None:
            way = past / (steps * (self.last_epoch - self.first_epoch + 1))
            return rise * (self.final_lr + (self.lr - self.final_lr) * (1 + math.cos(math.pi * way)) / 2)
        return rise * self.lr * self.gamma ** sum(epoch - self.first_epoch >= start for start in self.milestones)

    def loss(self, frame_weights: tuple[float, ...]) -> Loss:
        return Loss(self.rate, self.distortion, frame_weights)

    def stage_plan(self, *, variable_rate: bool, through_references: bool, frame_types: tuple[int, ...]) -> StagePlan:
        """How the phase codes clips.

        Args:
            variable_rate: the remembered flow of variable-rate models is never detached.
            through_references: `--FGOP_Inter_XtRNN`: in fullgop without RNN, do not detach the reference frame.
        """
        recurrent = bool(self.rnn) and self.stage == "fullgop"
        keeps_frame = recurrent or (through_references and self.stage == "fullgop")
        return StagePlan(stage=self.stage, path=self.path, p_frames=self.p_frames, detach_frame=not keeps_frame,
                         detach_flow=not (recurrent or variable_rate), frame_types=frame_types,
                         terms=self.rate.terms | self.distortion.terms, truncate=self.truncate, rate_of=self.rate_of)

    @property
    def path(self) -> str | None:
        """The part of a P-frame's way that is coded, as in `StagePlan`."""
        return "contexts" if self.stage == "trainmc" else "motion" if self.mode == "motion" else None

    def __post_init__(self):
        if self.stage not in STAGES:
            raise InputError(f"phase {self.name}: stage {self.stage!r} is unknown; choose from {', '.join(STAGES)}")
        if (self.stage == "2Pframes") != (self.mode is not None) or self.mode not in (None, *MODES):
            raise InputError(f"phase {self.name}: mode {self.mode!r} cannot be used; stage 2Pframes needs mode "
                             f"{' or '.join(MODES)}, the others none")
        if self.rnn not in (None, 0, 1):
            raise InputError(f"phase {self.name}: RNN {self.rnn!r} must be 0 or 1")
        if self.last_epoch < self.first_epoch:
            raise InputError(f"phase {self.name}: end_epoch {self.last_epoch} lies before its first epoch "
                             f"{self.first_epoch}; phases must end in ascending order")
        for key in ("batch_size", "max_p_frames"):
            if getattr(self, key) < 1:
                raise InputError(f"phase {self.name}: {key} {getattr(self, key)} must be at least 1")
        if not 0 < self.train_len <= 1:
            raise InputError(f"phase {self.name}: train_len {self.train_len} is outside (0, 1]")
        if not self.lr > 0:
            raise InputError(f"phase {self.name}: lr {self.lr} must be above 0")
        self._check_optional()
        if (self.stage == "trainmc") != self.distortion.is_context_weighting:
            raise InputError(f"phase {self.name}: the distortion {self.distortion.text!r} does not fit stage "
                             f"{self.stage}; weights such as 1_0.5_0.25_0.125/4 belong to trainmc, and to it alone")

    def _check_optional(self) -> None:
        if self.final_lr is not None and (self.milestones or not 0 < self.final_lr <= self.lr):
            raise InputError(f"phase {self.name}: final_lr {self.final_lr} must lie above 0 and not above lr "
                             f"{self.lr}, and without milestones")
        if self.warmup_steps < 0 or (self.clip_norm is not None and not self.clip_norm > 0):
            raise InputError(f"phase {self.name}: warmup_steps {self.warmup_steps} must be at least 0, clip_norm "
                             f"{self.clip_norm} above 0")
        if self.rate_of not in RATES_OF:
            raise InputError(f"phase {self.name}: rate_of {self.rate_of!r} must be {' or '.join(RATES_OF)}")
        if self.truncate is not None and self.truncate < 1:
            raise InputError(f"phase {self.name}: truncate {self.truncate} must be at least 1")
        if self.late < 0 or (self.late and self.stage != "fullgop"):
            raise InputError(f"phase {self.name}: late {self.late} must be at least 0, and 0 but in stage fullgop")
        if self.lr_inputs is not None and self.lr_inputs < 1:
            raise InputError(f"phase {self.name}: lr_inputs {self.lr_inputs} must be at least 1")
        if not 0 <= self.balance <= 1:
            raise InputError(f"phase {self.name}: balance {self.balance} is outside 0..1")
        if not 0 <= self.still <= 1:
            raise InputError(f"phase {self.name}: still {self.still} is outside 0..1")
        if not self.skip_above > 0:
            raise InputError(f"phase {self.name}: skip_above {self.skip_above} must be above 0")
        if self.steps_per_epoch is not None and (self.steps_per_epoch < 1 or self.train_len != 1):
            raise InputError(f"phase {self.name}: steps_per_epoch {self.steps_per_epoch} must be at least 1, and "
                             "without train_len")
        if self.crop_size is not None and self.crop_size < 16:
            raise InputError(f"phase {self.name}: crop_size {self.crop_size} must be at least 16")
        if self.amp not in (None, "off", "bfloat16"):
            raise InputError(f"phase {self.name}: amp {self.amp!r} must be off or bfloat16")
        if self.lambdas is not None and (len(self.lambdas) < 2 or self.lambdas[0] <= 0
                                         or list(self.lambdas) != sorted(self.lambdas)):
            raise InputError(f"phase {self.name}: lambdas {list(self.lambdas)} must be two numbers above 0, that of "
                             "QP 0 and that of QP 63, or more with those of QPs between, in ascending order")
        terms = _TERMS_ALONE.get(self.stage)
        if terms and not self.rate.terms | self.distortion.terms <= terms:
            raise InputError(f"phase {self.name}: stage {self.stage} knows the terms {', '.join(sorted(terms))} only, "
                             f"not {', '.join(sorted((self.rate.terms | self.distortion.terms) - terms))}")


_TERMS_ALONE = {"intra": {"i_rate", "distortion"}, "flow": {"warped_distortion", "flow_distortion", "flow_roughness"}}
"""What the stages that train one network alone can measure."""

assert _TERMS_ALONE.keys() == set(ALONE)

_KEYS = {"end_epoch": "last_epoch", "epoch": "last_epoch", "stage": "stage", "mode": "mode", "RNN": "rnn",
         "max_num_Pframe": "max_p_frames", "frozen_modules": "frozen", "re-activate_modules": "reactivated",
         **{key: key for key in (
             "truncate", "late", "batch_size", "lr", "train_len", "lr_inputs", "milestones", "gamma", "final_lr",
             "warmup_steps", "clip_norm", "skip_above", "steps_per_epoch", "crop_size", "amp", "clips", "still",
             "lambdas", "balance", "validate", "rate_of")}}
"""Keys of the files -> fields; `loss_on` has two fields."""

_KINDS = {"last_epoch": int, "rnn": int, "max_p_frames": int, "truncate": int, "late": int, "batch_size": int,
          "lr": float, "train_len": float, "gamma": float, "stage": str, "mode": str, "final_lr": float,
          "warmup_steps": int, "clip_norm": float, "skip_above": float, "steps_per_epoch": int, "crop_size": int,
          "amp": str, "rate_of": str, "balance": float, "still": float, "lr_inputs": int}


def find_file(path: str | Path, folder: Path = TRAIN_CFG) -> Path:
    """The file of that name, also by its stem alone and in `folder`.

    Raises:
        InputError: there is none.
    """
    path = Path(path)
    for parent in (path.parent, folder):
        for candidate in (parent / path.name, *(parent / f"{path.name.removesuffix(path.suffix)}{ending}"
                                                for ending in (".yml", ".json")),
                          *(parent / f"{path.name}{ending}" for ending in (".yml", ".json"))):
            if candidate.is_file():
                return candidate
    raise InputError(f"{path} does not exist; the shipped files are in {folder.name}/, for example "
                     f"{folder.name}/train_VariableRate.yml")


def read_phases(path: str | Path) -> tuple[Phase, ...]:
    """The phases of a `--train_conf` file, in order.

    Raises:
        InputError: a key or value is unknown, missing or impossible.
    """
    path = find_file(path)
    result: list[Phase] = []
    for name, settings in read_named(path, "phase", beside=("groups",)).items():
        result.append(_phase(path, name, settings, result[-1].last_epoch + 1 if result else 1))
    return tuple(result)


def _phase(path: Path, name: str, settings: dict, first_epoch: int) -> Phase:
    loss_on = settings.pop("loss_on", None)
    if not isinstance(loss_on, dict) or loss_on.keys() != {"R", "D"}:
        raise InputError(f"{path}: phase {name}: loss_on must be {{R: terms, D: terms}}")
    values: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in _KEYS:
            raise InputError(f"{path}: phase {name}: unknown key {key!r}; allowed are loss_on, {', '.join(_KEYS)}")
        values[_KEYS[key]] = _value(path, name, key, value)
    for key in ("last_epoch", "stage", "batch_size", "lr"):
        if key not in values:
            raise InputError(f"{path}: phase {name}: key {'end_epoch' if key == 'last_epoch' else key} is missing")
    try:
        return Phase(name=name, first_epoch=first_epoch, rate=LossExpression(str(loss_on["R"])),
                     distortion=LossExpression(str(loss_on["D"])), **values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _value(path: Path, name: str, key: str, value: Any) -> Any:
    field = _KEYS[key]
    try:
        if field in ("frozen", "clips"):
            return tuple(map(str, _listed(value)))
        if field == "lambdas":
            return tuple(map(float, _listed(value)))
        if field == "amp" and value is False:                      # how YAML reads `off`
            return "off"
        if field == "validate":
            return _true_or_false(value)
        if field == "reactivated":
            return tuple((str(module), str(part)) for module, part in map(_listed, _listed(value)))
        if field == "milestones":
            return tuple(map(int, _listed(value)))
        if isinstance(value, bool) or value is None:
            raise ValueError
        return _KINDS[field](value)
    except (TypeError, ValueError):
        raise InputError(f"{path}: phase {name}: {key} {value!r} cannot be used; see the files in train_cfg/"
                         ) from None


def _true_or_false(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(value)
    return value


def _listed(value: Any) -> list:
    if not isinstance(value, list):
        raise ValueError(value)
    return value


def shortened(phases: tuple[Phase, ...], ratio: float) -> tuple[Phase, ...]:
    """The phases with their numbers of epochs multiplied by `--epoch_ratio`, at least one each.

    Raises:
        InputError: the ratio is not above 0.
    """
    if not ratio > 0:
        raise InputError(f"--epoch_ratio {ratio} must be above 0")
    result: list[Phase] = []
    for phase in phases:
        first = result[-1].last_epoch + 1 if result else 1
        epochs = max(1, round((phase.last_epoch - phase.first_epoch + 1) * ratio))
        milestones = tuple(max(1, round(epoch * ratio)) for epoch in phase.milestones)
        result.append(replace(phase, first_epoch=first, last_epoch=first + epochs - 1, milestones=milestones))
    return tuple(result)

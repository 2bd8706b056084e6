"""Validation: the first GOP of each test sequence, coded as evaluation codes it (train_cfg/training_procedure.md).

The validation loss is the mean of R + lambda * 255^2 * D over P-frames, sequences and QPs, whatever the phase
minimises, so that epochs of different phases compare. In stage intra it is that of the first frame.
"""
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from dataloader.sequences import Sequence, select
from dataloader.source import CenterCrop, FrameSource, PngFolder
from models.codec import CodedFrame, VideoCodec
from models.entropy.coder import Estimator
from models.layers.functional import crop
from util.arithmetic import tf32_in_convolutions
from util.coding.gop import CodingPlan
from util.errors import InputError
from util.evaluation.metrics import METRICS, check_size
from util.training.distributed import Team
from util.training.losses import PSNR_SCALE, Distortion
from util.training.options import TrainingOptions
from util.training.signals import Stopped, StopSignal

VALIDATION_QPS = (0, 21, 42, 63)
"""Of the variable-rate steps."""


@dataclass(frozen=True)
class RatePoint:
    """One rate at which sequences are validated.

    Attributes:
        label: QP, or the quality level of a single-rate model.
        scale: lambda * 255^2.
    """
    label: int
    plan: CodingPlan
    scale: float


class Validation:
    """The validation of a step.

    Args:
        sequences: (name, frames) of each sequence.
        gop: frames of each that are coded.
    """

    def __init__(self, sequences: list[tuple[str, FrameSource]], points: list[RatePoint], *, ssim: bool, gop: int,
                 align: int | None):
        self.sequences, self.points, self.gop, self.align = sequences, points, gop, align
        self.distortion = Distortion(ssim)
        self.metric = METRICS["MS-SSIM" if ssim else "PSNR"]

    def run(self, codec: VideoCodec, team: Team, intra: bool = False, stop: StopSignal | None = None
            ) -> tuple[list[dict], float, dict[str, Tensor]]:
        """Rows of sequence, QP, loss, rate and quality; their mean loss; pictures of the first sequence.

        Float32 means float32 here, whatever training takes for it: no TF32.

        Args:
            intra: of the I-frame instead of the P-frames.
            stop: asked before each frame.

        Raises:
            Stopped: any process was to stop.
        """
        codec.eval()
        try:
            with tf32_in_convolutions(False):
                own: list[dict] = []
                for sequence in self.sequences[team.rank::team.processes]:
                    own += self._code(codec, team, intra, stop, *sequence)
                parts = team.gather((own, stop is not None and stop.received))
                if any(stopped for _, stopped in parts):
                    raise Stopped
                pictures = self._picture(codec, team) if team.leads and not intra else {}
        finally:
            codec.train()
        rows = [row for part, _ in parts for row in part]
        return rows, sum(row["loss"] for row in rows) / len(rows), pictures

    def trial(self, codec: VideoCodec, team: Team) -> None:
        """Two frames of the first sequence, to find trouble before hours of training."""
        short = Validation(self.sequences[:1], self.points[:1], ssim=self.distortion.ssim, gop=2, align=self.align)
        short.run(codec, team)

    @torch.no_grad()
    def _code(self, codec: VideoCodec, team: Team, intra: bool, stop: StopSignal | None, name: str, source: FrameSource
              ) -> list[dict]:
        memories = [None] * len(self.points)
        totals = torch.zeros(len(self.points), 3, dtype=torch.float64)
        for n, pixels in enumerate(islice(source, 1 if intra else self.gop)):
            if stop is not None and stop.received:
                return []
            original = pixels.to(team.device).unsqueeze(0).float() / 255
            for i, point in enumerate(self.points):
                coded, coder = self._code_frame(codec, original, memories[i], point, n)
                memories[i] = coded.memory
                if n or intra:
                    decoded = crop(coded.frame, original.shape[-2:]).clamp(0, 1)
                    rate = float(sum(coder.bits.values())) / original[0, 0].numel()
                    loss = rate + point.scale * self.distortion(decoded, original).item()
                    totals[i] += torch.tensor((loss, rate, self.metric(decoded, original)), dtype=torch.float64)
        means = (totals / max(1, n)).tolist()
        return [{"sequence": name, "QP": point.label, "loss": loss, "rate": rate, "quality": quality}
                for point, (loss, rate, quality) in zip(self.points, means)]

    def _code_frame(self, codec: VideoCodec, original: Tensor, memory, point: RatePoint, n: int
                    ) -> tuple[CodedFrame, Estimator]:
        coder, frame = Estimator(), codec.grid.pad(original, self.align)
        header = codec.understood(point.plan.header(n, tuple(frame.shape[-2:])))
        return codec.code_frame(coder, frame, memory, header), coder

    @torch.no_grad()
    def _picture(self, codec: VideoCodec, team: Team) -> dict[str, Tensor]:
        """Flow, decoded flow, mask, prediction, residual and decoded frame of an early P-frame, 3 H W in [0, 1]."""
        _, source = self.sequences[0]
        memory, coded, original = None, None, None
        for n, pixels in enumerate(islice(source, min(self.gop, 3))):
            original = pixels.to(team.device).unsqueeze(0).float() / 255
            coded, _ = self._code_frame(codec, original, memory, self.points[-1], n)
            memory = coded.memory
        from torchvision.utils import flow_to_image  # slow to load, and only needed here
        views, size = coded.views, original.shape[-2:]
        pictures = {"decoded_frame": crop(coded.frame, size)[0]}
        pictures |= {name: flow_to_image(views[name])[0].float() / 255 for name in ("flow", "decoded_flow")
                     if name in views}
        if "prediction" in views:
            predicted = crop(views["prediction"], size)
            pictures |= {"prediction": predicted[0], "residual": (0.5 + (original - predicted) / 2)[0]}
        if "mask" in views:
            pictures["mask"] = crop(views["mask"], size)[0].expand(3, -1, -1)
        return {name: picture.clamp(0, 1).cpu() for name, picture in pictures.items()}


def rate_points(options: TrainingOptions, variable_rate: bool, anchor: int,
                lambdas: tuple[float, ...] | None = None) -> list[RatePoint]:
    """QP 0, 21, 42 and 63 of a variable-rate model, or the quality level of a single-rate one."""
    distortion = Distortion(options.ssim)
    shared: Mapping = {"gop": options.gop, "index_map": options.index_map, "rate_gop_size": options.rate_gop_size,
                       "reset_interval": options.reset_interval}
    if not variable_rate:
        return [RatePoint(options.quality_level, CodingPlan(qp=0, intra_qp=anchor, **shared),
                          PSNR_SCALE * distortion.lambda_of_level(options.quality_level))]
    values = distortion.lambdas_of_rates(options.quality_level, lambdas).tolist()
    return [RatePoint(qp, CodingPlan(qp=qp, intra_qp=qp, **shared), PSNR_SCALE * values[qp])
            for qp in VALIDATION_QPS]


def make_validation(options: TrainingOptions, variable_rate: bool, anchor: int, team: Team,
                    lambdas: tuple[float, ...] | None = None) -> Validation | None:
    """The validation on the sequences that are on disk; None, and a word about it, without any.

    Args:
        lambdas: where the recipe has its own.

    Raises:
        InputError: an unknown data set, or a sequence that cannot be read.
    """
    points = rate_points(options, variable_rate, anchor, lambdas)
    if options.valid_data is not None:
        sources = _folders(options)
    else:
        sources = _test_sequences(options, team)
    if not sources:
        return None
    for name, source in sources:
        check_size("MS-SSIM" if options.ssim else "PSNR", name, source.height, source.width)
    return Validation(sources, points, ssim=options.ssim, gop=3 if options.debug else options.gop,
                      align=options.align_factor)


def _folders(options: TrainingOptions) -> list[tuple[str, FrameSource]]:
    """Every folder of frames below `--valid_data`.

    Raises:
        InputError: there is none.
    """
    folders = sorted(path.parent for path in options.valid_data.rglob("frame_1.png"))
    if not folders:
        raise InputError(f"--valid_data {options.valid_data} holds no folder with frame_1.png, frame_2.png, ...; "
                         "name another, or leave the flag out")
    return [(str(folder.relative_to(options.valid_data)), _cropped(options, PngFolder(folder)))
            for folder in (folders[:1] if options.debug else folders)]


def _cropped(options: TrainingOptions, source: FrameSource) -> FrameSource:
    return CenterCrop(source, options.crop_factor) if options.test_crop else source


def _test_sequences(options: TrainingOptions, team: Team) -> list[tuple[str, FrameSource]]:
    """The sequences of `--test_dataset` that are below `-data`."""
    chosen = select(list(options.test_dataset), list(options.test_seqs))
    if not chosen:
        return []
    present = [sequence for sequence in chosen if _folder(options, sequence).is_dir()]
    if not present:
        team.say(f"no validation: none of the sequences of {', '.join(options.test_dataset)} is below {options.data}; "
                 "training goes on without it, and without a best checkpoint")
        return []
    if len(present) < len(chosen):
        team.say(f"validation on {len(present)} of {len(chosen)} sequences; below {options.data} there is no "
                 f"{', '.join(sequence.name for sequence in chosen if sequence not in present)}")
    return [(sequence.report_name(options.color_transform),
             _cropped(options, sequence.source(options.data, options.color_transform, None)))
            for sequence in (present[:1] if options.debug else present)]


def _folder(options: TrainingOptions, sequence: Sequence):
    return options.data / sequence.dataset / sequence.report_name(options.color_transform)

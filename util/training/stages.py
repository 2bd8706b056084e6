"""How a clip passes through the model in each stage of training (train_cfg/training_procedure.md).

    1Pframe            I P             one P-frame
    2Pframes motion    I P P           motion codec alone; references are the intra frame, then the original
    2Pframes residual  I P P           whole model; the reference frame is detached
    trainmc            P ... P         context mining from original references
    fullgop            I P ... P       whole model; with RNN gradients flow through the references
    intra              I               intra codec alone, from nothing
    flow               P               motion estimation alone, from nothing, between originals

Implicit memory is never detached, except where gradients are truncated. In the single-rate steps without RNN the
remembered flow is. Shapes: clips
B T 3 H W in [0, 1], in coding order.
"""
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.codec import CodedFrame, FrameHeader, Memory, VideoCodec
from models.entropy.training import Noise, SymbolEstimator, TrainingEstimator, round_straight_through
from models.layers.functional import warp
from util.training.losses import Distortion, Terms

STAGES = ("1Pframe", "2Pframes", "trainmc", "fullgop", "intra", "flow")

ALONE = ("intra", "flow")
"""Stages that use one network alone; other stages train all but the intra codec."""

FLOW_SCALES = 4
"""Resolutions at which stage flow compares the warped reference, from 1/1 down: coarse ones see large motion."""


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """What a phase does with each clip.

    Attributes:
        stage: one of STAGES.
        path: the part of a P-frame's way that is coded (`VideoCodec.partial_paths`); None for all of it.
        p_frames: P-frames per clip.
        detach_frame: whether the gradient stops at the reference frame.
        detach_flow: whether it stops at the remembered decoded flow.
        truncate: P-frames after which no gradient flows on into what is remembered; None: it flows through all. Each
            sample's first window has another length, up to this: a frame that always opened one would learn to spend
            for those that follow, a frame that always closed one to save.
        frame_types: of each frame of a group, entry 0 being the I-frame's; those of frames before the clip, too.
        terms: those that need gradients; the others are computed without, for the log.
        rate_of: what bits are counted of, one of RATES_OF.
    """
    stage: str
    path: str | None = None
    p_frames: int
    detach_frame: bool
    detach_flow: bool
    frame_types: tuple[int, ...]
    terms: frozenset[str]
    truncate: int | None = None
    rate_of: str = "noise"


RATES_OF = {"noise": TrainingEstimator, "symbols": SymbolEstimator}
"""How bits are estimated."""


@dataclass(frozen=True)
class Clips:
    """A batch, as the model sees it.

    Attributes:
        frames: B T 3 H W.
        qp: rate index of each sample, int64 (B,), for I- and P-frames; for single-rate models an int, the intra anchor.
        noise: of the rate path.
        keys: a random number for each sample, int64 (B,): where its first window of gradients ends (`truncate`).
        before: P-frames that are coded before, without gradients, the clip being played back and forth for it.
    """
    frames: Tensor
    qp: Tensor | int
    noise: Noise
    keys: Tensor | None = None
    before: int = 0


class _Rounding:
    """The coder of the intra frame, whose bits no loss counts."""

    def code(self, residual: Tensor, scale: Tensor, distribution, name: str) -> Tensor:
        return residual.round()

    def code_z(self, z: Tensor, prior, size: tuple[int, int], name: str) -> Tensor:
        return z.round()


class ClipCoder:
    """Codes clips for training and measures the terms of the loss.

    Args:
        model: in training mode; its intra codec is only used, except in stage intra.
        feature_head: makes a frame of ref_feature (`--Pretrain_frame_feature`), or None.
        quantise: of the signal path, see `TrainingEstimator`.
    """

    def __init__(self, model: VideoCodec, plan: StagePlan, distortion: Distortion,
                 feature_head: nn.Module | None = None, quantise=round_straight_through):
        self.model, self.plan, self.distortion = model, plan, distortion
        self.feature_head, self.quantise = feature_head, quantise

    def __call__(self, clips: Clips) -> list[Terms]:
        """The terms of each P-frame, each (B,); of the I-frame in stage intra."""
        if self.plan.stage == "intra":
            return [self._learn_intra(clips)]
        if self.plan.stage == "flow":
            return [self._learn_flow(clips)]
        frames = clips.frames.unbind(1)[:self.plan.p_frames + 1]
        path = self.model.code_frame if self.plan.path is None else self.model.partial_paths()[self.plan.path]
        before = clips.before
        memory = self._first_memory(_back_and_forth(frames, -before), clips.qp)

        def code(frame: Tensor, number: int) -> tuple[TrainingEstimator, CodedFrame]:
            coder = self._coder(clips)
            header = FrameHeader(intra=False, qp=clips.qp, size=tuple(frame.shape[-2:]),
                                 frame_type=self.plan.frame_types[number])
            return coder, path(coder, frame, memory, self.model.understood(header))

        with torch.no_grad():
            for number in range(1, before + 1):
                _, coded = code(_back_and_forth(frames, number - before), number)
                memory = coded.memory
        results = []
        for position, frame in enumerate(frames[1:], start=1):
            memory = self._detached(memory, position, clips.keys)
            coder, coded = code(frame, before + position)
            results.append(self._terms(coder, frame, memory, coded))
            memory = coded.memory
        return results

    @torch.no_grad()
    def _first_memory(self, frame: Tensor, qp: Tensor | int) -> Memory:
        """What the first frame leaves: decoded, or where contexts are learnt the original."""
        if self.plan.path == "contexts":
            return self.model.remember_frame(frame)
        header = FrameHeader(intra=True, qp=qp, size=tuple(frame.shape[-2:]))
        return self.model.code_frame(_Rounding(), frame, None, header).memory

    def _coder(self, clips: Clips) -> TrainingEstimator:
        return RATES_OF[self.plan.rate_of](clips.noise, self.quantise)

    def _learn_intra(self, clips: Clips) -> Terms:
        coder, frame = self._coder(clips), clips.frames[:, 0]
        size = tuple(frame.shape[-2:])
        coded = self.model.code_frame(coder, frame, None, FrameHeader(intra=True, qp=clips.qp, size=size))
        return {"i_rate": sum(coder.bits[latent.name] for latent in reversed(self.model.latents(intra=True)))
                / (size[0] * size[1]), "distortion": self.distortion(coded.frame, frame)}

    def _learn_flow(self, clips: Clips) -> Terms:
        """The estimated flow is judged by what it warps, at several scales: without a true flow nothing else can."""
        reference, frame = clips.frames[:, 0], clips.frames[:, 1]
        flow = getattr(self.model, self.model.flow_network)(frame, reference).float()
        terms = {"warped_distortion": self.distortion(warp(reference, flow), frame),
                 "flow_roughness": _roughness(flow, frame)}
        total = terms["warped_distortion"]
        for _ in range(FLOW_SCALES - 1):
            reference, frame, flow = (F.avg_pool2d(x, 2) for x in (reference, frame, flow))
            flow = flow / 2
            total = total + self.distortion(warp(reference, flow), frame)
        return {**terms, "flow_distortion": total / FLOW_SCALES}

    def _detached(self, memory: Memory, position: int, keys: Tensor | None) -> Memory:
        """What is remembered at a P-frame (from 1), with gradients where the plan has them."""
        names, kept = ["frame"] * self.plan.detach_frame + ["flow"] * self.plan.detach_flow, memory.tensors()
        kept |= {name: kept[name].detach() for name in names if name in kept}
        if self.plan.truncate and position > 1:
            opens = (position - 1 + (0 if keys is None else keys)) % self.plan.truncate == 0
            opens = torch.as_tensor(opens, device=memory.frame.device).view(-1, 1, 1, 1)
            kept = {name: torch.where(opens, x.detach(), x) for name, x in kept.items()}
        return replace(memory, **kept)

    def _terms(self, coder: TrainingEstimator, frame: Tensor, memory: Memory, coded: CodedFrame) -> Terms:
        """What there is to measure of a P-frame, each (B,)."""
        views = coded.views
        if self.plan.path == "contexts":
            made = (views["mc"], *(views[f"context_frame{n}"] for n in (1, 2, 3)))
            return {f"mc_distortion{n}": self.distortion(x, frame) for n, x in enumerate(made)}
        terms = self._rates(coder, frame)
        if "decoded_flow" in views:
            self._measure(terms, "warped_distortion", frame, lambda: warp(memory.frame, views["decoded_flow"]))
        if self.plan.path == "motion":
            return terms
        if "mc" in views:
            self._measure(terms, "mc_distortion", frame, lambda: views["mc"])
        self._measure(terms, "distortion", frame, lambda: coded.frame)
        if "decoded_flow" in views:
            with torch.no_grad():
                error = views["decoded_flow"].float() - views["flow"].float()
                terms["motion_mse"] = error.square().flatten(1).mean(1)
        if self.feature_head is not None:
            self._measure(terms, "feature_frame_distortion", frame,
                          lambda: self.feature_head(coded.memory.ref_feature.float()))
        return terms

    def _measure(self, terms: Terms, name: str, target: Tensor, make) -> None:
        """One distortion, with a gradient where the loss needs it."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and name in self.plan.terms):
            terms[name] = self.distortion(make(), target)

    @staticmethod
    def _rates(coder: TrainingEstimator, frame: Tensor) -> Terms:
        """Bits per pixel of motion and of the rest, by the first letter of latents; of both where there is a rest."""
        pixels = frame.shape[-2] * frame.shape[-1]
        kinds = {kind: [coder.bits[name] for name in sorted(coder.bits) if name.startswith(kind)] for kind in "mr"}
        rates = {f"{kind}_rate": sum(bits) / pixels for kind, bits in kinds.items() if bits}
        return {**rates, "rate": sum(rates.values())} if "r_rate" in rates else rates


def _back_and_forth(frames: Sequence[Tensor], number: int) -> Tensor:
    """Frame `number`, also below 0, of a clip that is played forwards and backwards in turns, 0 and the last once."""
    last = len(frames) - 1
    number = abs(number) % (2 * last)
    return frames[min(number, 2 * last - number)]


def _roughness(flow: Tensor, frame: Tensor) -> Tensor:
    """Mean absolute difference between flow neighbours, less at edges of the frame, where motion may change. (B,)."""
    total = flow.new_zeros(flow.shape[0])
    for side in (2, 3):
        edge = frame.diff(dim=side).abs().mean(1, keepdim=True)
        total = total + (flow.diff(dim=side).abs() * torch.exp(-10 * edge)).flatten(1).mean(1)
    return total

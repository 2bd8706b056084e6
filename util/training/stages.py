"""How a clip passes through the model in each stage of training (SPEC section 11).

    1Pframe            I P             one P-frame
    2Pframes motion    I P P           motion codec alone; references are the intra frame, then the original
    2Pframes residual  I P P           whole model; the reference frame is detached
    trainmc            P ... P         context mining from original references
    fullgop            I P ... P       whole model; with RNN gradients flow through the references
    intra              I               intra codec alone, from nothing
    flow               P               motion estimation alone, from nothing, between originals

Implicit memory is never detached. In the single-rate steps without RNN the remembered flow is. Shapes: clips
B T 3 H W in [0, 1], in coding order.
"""
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.codec import FrameHeader
from models.entropy.training import Noise, TrainingEstimator, round_straight_through
from models.hytip.codec import HyTIP
from models.hytip.memory import HybridMemory
from models.layers.functional import crop, pad_to_multiple, warp
from util.training.losses import Distortion, Terms

STAGES = ("1Pframe", "2Pframes", "trainmc", "fullgop", "intra", "flow")

TRAINED_ALONE = {"intra": "if_model", "flow": "MENet"}
"""Stages that use one network alone -> its root in released names; other stages train all but the intra codec."""

FLOW_SCALES = 4
"""Resolutions at which stage flow compares the warped reference, from 1/1 down: coarse ones see large motion."""


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """What a phase does with each clip.

    Attributes:
        stage: one of STAGES.
        mode: motion or residual for 2Pframes.
        p_frames: P-frames per clip.
        detach_frame: whether the gradient stops at the reference frame.
        detach_flow: whether it stops at the remembered decoded flow.
        frame_types: of each frame of a clip, entry 0 being the I-frame's.
        terms: those that need gradients; the others are computed without, for the log.
    """
    stage: str
    mode: str | None = None
    p_frames: int
    detach_frame: bool
    detach_flow: bool
    frame_types: tuple[int, ...]
    terms: frozenset[str]


@dataclass(frozen=True)
class Clips:
    """A batch, as the model sees it.

    Attributes:
        frames: B T 3 H W.
        qp: rate index of each sample, int64 (B,), for I- and P-frames; for single-rate models an int, the intra anchor.
        noise: of the rate path.
    """
    frames: Tensor
    qp: Tensor | int
    noise: Noise


class _Rounding:
    """The coder of the intra frame, whose bits no loss counts."""

    def code(self, residual: Tensor, scale: Tensor, model, name: str) -> Tensor:
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

    def __init__(self, model: HyTIP, plan: StagePlan, distortion: Distortion, feature_head: nn.Module | None = None,
                 quantise=round_straight_through):
        self.model, self.plan, self.distortion = model, plan, distortion
        self.feature_head, self.quantise = feature_head, quantise

    def __call__(self, clips: Clips) -> list[Terms]:
        """The terms of each P-frame, each (B,); of the I-frame in stage intra."""
        if self.plan.stage == "intra":
            return [self._learn_intra(clips)]
        if self.plan.stage == "flow":
            return [self._learn_flow(clips)]
        code = self._code_contexts if self.plan.stage == "trainmc" else self._code_whole
        if self.plan.mode == "motion":
            code = self._code_motion
        frames = clips.frames.unbind(1)[:self.plan.p_frames + 1]
        memory = HybridMemory(frames[0] if self.plan.stage == "trainmc" else self._code_intra(frames[0], clips.qp))
        results = []
        for position, frame in enumerate(frames[1:], start=1):
            terms, memory = code(frame, self._detached(memory), clips, position)
            results.append(terms)
        return results

    @torch.no_grad()
    def _code_intra(self, frame: Tensor, qp: Tensor | int) -> Tensor:
        """The decoded I-frame. In training it is not clamped either (as in the release; the golden losses need it)."""
        padded = pad_to_multiple(frame, 64)
        decoded = self.model.intra(_Rounding(), padded, tuple(padded.shape[-2:]), qp)
        return crop(decoded, tuple(frame.shape[-2:]))

    def _learn_intra(self, clips: Clips) -> Terms:
        coder = TrainingEstimator(clips.noise, self.quantise)
        frame = clips.frames[:, 0]
        padded = pad_to_multiple(frame, 64)
        decoded = crop(self.model.intra(coder, padded, tuple(padded.shape[-2:]), clips.qp), tuple(frame.shape[-2:]))
        return {"i_rate": (coder.bits["iy"] + coder.bits["iz"]) / (frame.shape[-2] * frame.shape[-1]),
                "distortion": self.distortion(decoded, frame)}

    def _learn_flow(self, clips: Clips) -> Terms:
        """The estimated flow is judged by what it warps, at several scales: without a true flow nothing else can."""
        reference, frame = clips.frames[:, 0], clips.frames[:, 1]
        flow = self.model.motion_estimation(frame, reference).float()
        terms = {"warped_distortion": self.distortion(warp(reference, flow), frame),
                 "flow_roughness": _roughness(flow, frame)}
        total = terms["warped_distortion"]
        for _ in range(FLOW_SCALES - 1):
            reference, frame, flow = (F.avg_pool2d(x, 2) for x in (reference, frame, flow))
            flow = flow / 2
            total = total + self.distortion(warp(reference, flow), frame)
        return {**terms, "flow_distortion": total / FLOW_SCALES}

    def _detached(self, memory: HybridMemory) -> HybridMemory:
        if self.plan.detach_frame:
            memory = replace(memory, frame=memory.frame.detach())
        if self.plan.detach_flow and memory.flow is not None:
            memory = replace(memory, flow=memory.flow.detach())
        return memory

    def _code_motion(self, frame: Tensor, memory: HybridMemory, clips: Clips, position: int
                   ) -> tuple[Terms, HybridMemory]:
        coder = TrainingEstimator(clips.noise, self.quantise)
        flow = self.model.motion_estimation(frame, memory.frame)
        motion = self.model.motion(coder, flow, memory, clips.qp)
        terms = self._rates(coder, frame)
        self._measure(terms, "warped_distortion", frame, lambda: warp(memory.frame, motion.flow_hat))
        return terms, self._remember_motion(frame, motion)

    def _code_contexts(self, frame: Tensor, memory: HybridMemory, clips: Clips, position: int
                   ) -> tuple[Terms, HybridMemory]:
        coder = TrainingEstimator(clips.noise, self.quantise)
        flow = self.model.motion_estimation(frame, memory.frame)
        motion = self.model.motion(coder, flow, memory, clips.qp)
        prediction = self.model.inter.predict(memory, motion.flow_hat, self._frame_type(position))
        made = (prediction.mc_frame, *self.model.inter.context_frames(prediction.contexts))
        terms = {f"mc_distortion{i}": self.distortion(x, frame) for i, x in enumerate(made)}
        return terms, self._remember_motion(frame, motion)

    def _code_whole(self, frame: Tensor, memory: HybridMemory, clips: Clips, position: int
                   ) -> tuple[Terms, HybridMemory]:
        coder = TrainingEstimator(clips.noise, self.quantise)
        header = FrameHeader(intra=False, qp=clips.qp, size=tuple(frame.shape[-2:]),
                             frame_type=self._frame_type(position))
        coded = self.model.code_frame(coder, frame, memory, header)
        terms = self._rates(coder, frame)
        self._measure(terms, "warped_distortion", frame, lambda: warp(memory.frame, coded.views["decoded_flow"]))
        self._measure(terms, "mc_distortion", frame, lambda: coded.views["mc"])
        self._measure(terms, "distortion", frame, lambda: coded.frame)
        with torch.no_grad():
            error = coded.views["decoded_flow"].float() - coded.views["flow"].float()
            terms["motion_mse"] = error.square().flatten(1).mean(1)
        if self.feature_head is not None:
            self._measure(terms, "feature_frame_distortion", frame,
                          lambda: self.feature_head(coded.memory.ref_feature.float()))
        return terms, coded.memory

    def _remember_motion(self, frame: Tensor, motion) -> HybridMemory:
        """The memory of a frame of which only the motion was coded; the reference becomes the original."""
        config = self.model.config.motion
        return HybridMemory(frame=frame, flow=motion.flow_hat,
                      ref_mv_feature=motion.feature if config.remembers_feature else None,
                      ref_mv_y=motion.y_hat if config.remembers_latent else None)

    def _frame_type(self, position: int) -> int:
        return self.plan.frame_types[position]

    def _measure(self, terms: Terms, name: str, target: Tensor, make) -> None:
        """One distortion, with a gradient where the loss needs it."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and name in self.plan.terms):
            terms[name] = self.distortion(make(), target)

    @staticmethod
    def _rates(coder: TrainingEstimator, frame: Tensor) -> Terms:
        """Bits per pixel of motion and residual, and of both where both were coded."""
        pixels = frame.shape[-2] * frame.shape[-1]
        rates = {f"{kind}_rate": (coder.bits[f"{kind}y"] + coder.bits[f"{kind}z"]) / pixels
                 for kind in "mr" if f"{kind}y" in coder.bits}
        return {**rates, "rate": rates["m_rate"] + rates["r_rate"]} if "r_rate" in rates else rates


def _roughness(flow: Tensor, frame: Tensor) -> Tensor:
    """Mean absolute difference between flow neighbours, less at edges of the frame, where motion may change. (B,)."""
    total = flow.new_zeros(flow.shape[0])
    for side in (2, 3):
        edge = frame.diff(dim=side).abs().mean(1, keepdim=True)
        total = total + (flow.diff(dim=side).abs() * torch.exp(-10 * edge)).flatten(1).mean(1)
    return total

"""From a batch of clips to the loss of a phase: what processes share gradients of."""
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from models.entropy.training import SampleNoise
from util.formats import half_inside
from util.training.losses import PSNR_SCALE, Distortion, Loss, Terms
from util.training.network import TrainedNetwork
from util.training.stages import ClipCoder, Clips, StagePlan


class ClipLoss(nn.Module):
    """The loss of a batch; a module, so that gradients can be shared between processes.

    Args:
        plan: how the phase codes clips.
        anchor: the intra rate of a single-rate model.
        quality_level: 2..5, for lambda.
        lambdas: of a variable-rate model (`Distortion.lambdas_of_rates`), instead of those of the quality level.
        balance: weight of a sample's loss, as in `Phase`; of variable-rate models.
        ssim: distortion is MS-SSIM.
        amp: compute in bfloat16 where that is safe.
    """

    def __init__(self, network: TrainedNetwork, plan: StagePlan, loss: Loss, *, anchor: int, quality_level: int,
                 lambdas: tuple[float, ...] | None = None, balance: float = 0.0, ssim: bool = False, amp: bool = False):
        super().__init__()
        self.network = network
        distortion = Distortion(ssim)
        self._coder = ClipCoder(network.codec, plan, distortion, network.head)
        self._loss, self._anchor, self._amp = loss, anchor, amp
        variable = not network.codec.single_rate
        device = next(network.parameters()).device
        self.register_buffer("_lambdas", distortion.lambdas_of_rates(quality_level, lambdas).to(device) if variable
                             else None, persistent=False)
        self._lambda, self._balance = distortion.lambda_of_level(quality_level), balance

    def forward(self, frames: Tensor, qp: Tensor, noise_keys: Tensor, before: int = 0) -> tuple[Tensor, Terms]:
        """Loss (B,) and, without gradient, the mean of each term over the P-frames (B,).

        Args:
            frames: uint8 B T 3 H W.
            qp: int64 (B,), for variable-rate models.
            noise_keys: int64 (B,): all that is random about a sample.
            before: P-frames that are coded before those of the clip, as in `Clips`.
        """
        variable = self._lambdas is not None
        clips = Clips(frames.float() / 255, qp if variable else self._anchor, SampleNoise(noise_keys), noise_keys,
                      before)
        scale = PSNR_SCALE * (self._lambdas[qp] if variable else self._lambda)
        with self._arithmetic():
            results = self._coder(clips)
        means = {name: sum(terms[name].detach() for terms in results) / len(results) for name in results[0]}
        loss = self._loss.value(results, scale)
        if variable and self._balance:
            loss = loss * (self._lambdas.log().mean().exp() / self._lambdas[qp]) ** self._balance
        return loss, means

    def _arithmetic(self) -> AbstractContextManager:
        if not self._amp:
            return nullcontext()
        return half_inside(self.network.codec, torch.bfloat16, intra=self._coder.plan.stage == "intra")

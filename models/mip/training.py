"""What training must know of DCVC-MIP: where its weights start, from nothing and from those of DCVC-HEM."""
import torch
from torch import Tensor, nn

from models.codec import Pretrained
from models.hem import training as hem
from models.layers.offset_diversity import OffsetDiversity
from models.layers.windows import WindowLayer
from models.mip.inter import ContextRefinement


@torch.no_grad()
def initialise(codec: nn.Module, lambdas: tuple[float, ...] | None = None) -> None:
    """As in DCVC-HEM; what MIP adds is without effect on the contexts: no offsets, no refinement."""
    hem.initialise(codec, lambdas)
    for module in codec.modules():
        if isinstance(module, OffsetDiversity):
            module.start_as_warp()
        elif isinstance(module, ContextRefinement):
            nn.init.zeros_(module.conv_out.weight)
            nn.init.zeros_(module.conv_out.bias)
        elif isinstance(module, WindowLayer):
            module.start()


def of_base(name: str) -> tuple[str, ...]:
    """Entries of DCVC-HEM: all but the parameters of motion, whose network has another input in most variants.

    No variant takes it over, so that all of an ablation start alike.
    """
    return () if name.startswith("motion.mv_y_prior_fusion.") else (name,)


def of_released_video(name: str) -> tuple[str, ...]:
    return tuple(own for base in hem.of_released_video(name) for own in of_base(base))


def pretrained(ssim: bool) -> tuple[Pretrained, ...]:
    """The released weights of DCVC-HEM."""
    return hem.released(ssim, of_released_video)


def widen(name: str, value: Tensor, shape: torch.Size) -> Tensor:
    """The layers of DCVC-HEM's motion encoder that the condition joins: it has no weight at first."""
    if name not in ("motion.mv_encoder.2.conv1.weight", "motion.mv_encoder.2.downsample.weight"):
        return value
    if value.dim() != 4 or value.shape[1] > shape[1] or (value.shape[0], *value.shape[2:]) != (shape[0], *shape[2:]):
        return value
    wide = value.new_zeros(shape)
    wide[:, :value.shape[1]] = value
    return wide


TRAINING = hem.TRAINING._replace(initialise=initialise, rules={**hem.TRAINING.rules, "base": of_base},
                                 pretrained=pretrained, widen=widen)

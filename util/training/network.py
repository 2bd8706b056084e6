"""What is trained: the codec, and the head that makes frames of its implicit feature; under the released names.

Names here are `network.part`, e.g. `Residual.feature_adaptor.0.weight`: the released names without `module.net`.
"""
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from models.codec import VideoCodec
from models.layers.blocks import conv
from util.checkpoint import released_layout
from util.errors import InputError
from util.training.phases import Phase

LAYERS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)
"""What has weights with inputs; everything else learns at the whole rate."""

HEAD = "feature_frame_generate"
"""Root of the head's names in checkpoints; evaluation drops it."""


class TrainedNetwork(nn.Module):
    """The codec with its optional head.

    Args:
        codec: with new weights.
        feature_head: add a 3x3 convolution from ref_feature to a frame (`--Pretrain_frame_feature`).

    Raises:
        InputError: a head, but no implicit feature.
    """

    def __init__(self, codec: VideoCodec, feature_head: bool = False):
        super().__init__()
        if feature_head and codec.feature_channels is None:
            raise InputError("--Pretrain_frame_feature needs a model that remembers a feature (HyTIP: an inter "
                             "configuration with buffering_type hybrid)")
        self.codec = codec
        self.roots = codec.plain_roots()
        self._plain = {codec.released_name(name): f"{self.roots[name.split('.')[0]]}.{name.split('.', 1)[1]}"
                       for name in codec.state_dict()}
        self.head = conv(codec.feature_channels, 3) if feature_head else None

    def plain_name(self, released: str) -> str:
        """The name here of an entry of a checkpoint, whoever wrote it."""
        return self._plain.get(released) or plain_name(released)

    def entries(self) -> Iterator[tuple[str, Tensor]]:
        """Every entry of the state dict with its name."""
        for name, value in self.codec.state_dict().items():
            root, rest = name.split(".", 1)
            yield f"{self.roots[root]}.{rest}", value
        if self.head is not None:
            for name, value in self.head.state_dict().items():
                yield f"{HEAD}.{name}", value

    def load_entries(self, entries: dict[str, Tensor]) -> None:
        """Fill some entries; names and shapes must fit."""
        own = dict(self.entries())
        with torch.no_grad():
            for name, value in entries.items():
                own[name].copy_(value)

    def trainable_candidates(self, stage: str = "fullgop") -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters that a stage can train, with their names.

        The intra codec is trained in a stage of its own and never with the others.
        """
        alone = {"intra": self.codec.intra_network, "flow": self.codec.flow_network}.get(stage)
        for root, released in self.roots.items():
            if root == alone or (alone is None and root != self.codec.intra_network):
                for name, parameter in getattr(self.codec, root).named_parameters():
                    yield f"{released}.{name}", parameter
        if self.head is not None and alone is None:
            for name, parameter in self.head.named_parameters():
                yield f"{HEAD}.{name}", parameter

    def select(self, phase: Phase) -> dict[str, nn.Parameter]:
        """Freeze what the phase does not train. Returns what it trains, by name.

        Raises:
            InputError: a name of the phase belongs to nothing in this model, or nothing is left to train.
        """
        candidates = dict(self.trainable_candidates(phase.stage))
        for part in phase.frozen:
            if not any(_belongs(name, part) for name in candidates) and part not in (HEAD, *self.roots.values()):
                raise InputError(f"phase {phase.name}: frozen_modules names {part!r}, which this model does not have")
        for root, substring in phase.reactivated:
            if not any(_reactivates(name, root, substring) for name in candidates):
                raise InputError(f"phase {phase.name}: re-activate_modules names {substring!r} of {root}, which this "
                                 "model does not have")
        chosen = {name: parameter for name, parameter in candidates.items()
                  if not any(_belongs(name, part) for part in phase.frozen)
                  or any(_reactivates(name, *pair) for pair in phase.reactivated)}
        if not chosen:
            raise InputError(f"phase {phase.name} freezes everything; name fewer frozen_modules")
        self.requires_grad_(False)
        for parameter in chosen.values():
            parameter.requires_grad_(True)
        return chosen

    def groups(self, chosen: Mapping[str, nn.Parameter], phase: Phase) -> list[dict]:
        """The chosen parameters as Adam's groups, one for each factor of the learning rate (`Phase.lr_inputs`)."""
        factors = {}
        if phase.lr_inputs is not None:
            factors = {id(module.weight): min(1.0, phase.lr_inputs / _inputs(module)) for module in self.modules()
                       if isinstance(module, LAYERS)}
        result: dict[float, list[nn.Parameter]] = {}
        for parameter in chosen.values():
            result.setdefault(factors.get(id(parameter), 1.0), []).append(parameter)
        return [{"params": parameters, "factor": factor} for factor, parameters in result.items()]

    def layout(self, **extra) -> dict:
        """The released layout, with the head; `extra` as in `util.checkpoint.released_layout`."""
        content = released_layout(self.codec, **extra)
        if self.head is not None:
            content["state_dict"] |= {f"{HEAD}.module.{name}": value.detach().cpu()
                                      for name, value in self.head.state_dict().items()}
        return content


def _inputs(layer: nn.Module) -> float:
    """Values that each output of a layer is a sum of."""
    if isinstance(layer, nn.ConvTranspose2d):                      # weight: in, out / groups, ...; strides leave gaps
        return layer.weight[:, 0].numel() / layer.groups / math.prod(layer.stride)
    return layer.weight[0].numel()


def _belongs(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def _reactivates(name: str, root: str, substring: str) -> bool:
    return _belongs(name, root) and substring in name.removeprefix(f"{root}.")


def plain_name(released: str) -> str:
    """`Residual.module.net.x` or `feature_frame_generate.module.x` -> `Residual.x`, `feature_frame_generate.x`."""
    root, *rest = released.split(".")
    for word in ("module", "net"):
        if rest and rest[0] == word:
            rest = rest[1:]
    return ".".join((root, *rest))

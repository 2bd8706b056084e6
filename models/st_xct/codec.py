"""ST-XCT (Chen et al., ACM MM 2023): DCVC-HEM with spatio-temporal cross-covariance transformers.

The method is the subject of US patent 12,309,404 B2 (docs/fidelity.md).
"""
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from models.codec import CodedFrame, FrameHeader, Training
from models.entropy.coder import Coder
from models.hem.codec import DCVCHEM
from models.hem.memory import HemMemory
from models.st_xct.blocks import Fuse
from models.st_xct.config import XctConfig
from models.st_xct.inter import TransformingInterCodec
from models.st_xct.training import TRAINING


class STXCT(DCVCHEM):
    """DCVC-HEM with another contextual codec."""
    config_type = XctConfig
    make_inter = TransformingInterCodec

    def code_frame(self, coder: Coder, frame: Tensor | None, memory: HemMemory | None, header: FrameHeader
                   ) -> CodedFrame:
        if header.intra or self.training:
            return super().code_frame(coder, frame, memory, header)
        with self.watched_attention() as maps:
            coded = super().code_frame(coder, frame, memory, header)
        known = {place: found for place, found in maps.items() if found and not place.startswith("contextual_encoder.")}
        return coded._replace(views={**coded.views, "attention": mosaic(known)}) if known else coded

    @contextmanager
    def watched_attention(self) -> Iterator[Mapping[str, list[Tensor]]]:
        """Inside the block, keep what each P-frame's attention was.

        Returns:
            Place, such as `contextual_decoder.xct_large` -> for each of its blocks, B heads c c: how much each channel
            (row) takes of each (column); rows sum to 1.
        """
        maps: dict[str, list[Tensor]] = {}
        hooks = []
        for name, place in self.inter.named_modules():
            if isinstance(place, Fuse):
                found = maps.setdefault(name, [])
                hooks += [block.attn.softmax.register_forward_hook(
                    lambda _, args, output, found=found: found.append(output.detach())) for block in place]
        try:
            yield maps
        finally:
            for hook in hooks:
                hook.remove()

    @classmethod
    def for_training(cls) -> Training:
        return TRAINING


def mosaic(maps: Mapping[str, list[Tensor]]) -> Tensor:
    """Attention of all places as one picture, B 1 h w: places beside each other, in each a row per block, and heads
    side by side, a pixel apart."""
    places = []
    for found in maps.values():
        heads = F.pad(torch.stack(found, 1), (0, 1, 0, 1))                 # B blocks heads c+1 c+1
        places.append(heads.permute(0, 1, 3, 2, 4).flatten(3, 4).flatten(1, 2))
    height = max(place.shape[1] for place in places)
    return torch.cat([F.pad(place, (0, 8, 0, height - place.shape[1])) for place in places], 2)[:, None, :-1, :-9]

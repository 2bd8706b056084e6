"""DCVC-MIP (Qi et al., CVPR 2023): DCVC-HEM with a loop between motion and features.

    motion decoder --guidance--> refined flows --condition--> motion codec of the next frame

Nothing new is transmitted: the decoder has everything before it reads the symbols that depend on it.
"""
from torch import Tensor, nn

from models.codec import Formats, Training
from models.hem.codec import DCVCHEM
from models.hem.inter import CodedContent
from models.layers.offset_diversity import OffsetDiversity
from models.mip.config import MipConfig, MipParams
from models.mip.inter import MipInterCodec, RefinedPrediction
from models.mip.memory import MipMemory
from models.mip.motion import GuidingMotion, MipMotionCodec
from models.mip.training import TRAINING


class DCVCMIP(DCVCHEM):
    """DCVC-HEM, with what its configuration says of MIP."""
    config_type = MipConfig
    make_motion = MipMotionCodec
    make_inter = MipInterCodec
    make_memory = MipMemory

    def __init__(self, config: MipConfig):
        super().__init__(config)
        TRAINING.initialise(self, None)                 # also where only some weights come from DCVC-HEM

    def remember(self, decoded: Tensor, motion: GuidingMotion, prediction: RefinedPrediction, coded: CodedContent
                 ) -> MipMemory:
        return MipMemory(decoded, ref_feature=coded.feature, ref_y=coded.y_hat, ref_mv_y=motion.y_hat,
                         condition=prediction.condition)

    def views(self, motion: GuidingMotion, prediction: RefinedPrediction) -> dict[str, Tensor]:
        own = {"residual_offset": prediction.offset, "offset_mask": prediction.mask}
        return super().views(motion, prediction) | {name: x for name, x in own.items() if x is not None}

    @classmethod
    def for_training(cls) -> Training:
        return TRAINING

    @property
    def settings(self) -> dict[str, object]:
        """Offsets and the feature that they are made from have the same number of channels, as have contexts."""
        mip, paper = self.config.MIP_Params, MipParams()
        own = {}
        if mip.offset_diversity and mip.offset_magnitude != paper.offset_magnitude:
            own["offset_magnitude"] = mip.offset_magnitude
        if mip.motion_condition == "offsets":
            own["motion_condition"] = "offsets"
        if mip.refined_scale not in (None, 4):
            own["context_refine_scale"] = mip.refined_scale
        return super().settings | own

    def formats(self) -> Formats:
        """Offsets are displacements, and made in float32; what they move is not."""
        base, inter, motion = super().formats(), self.inter, self.motion
        half, exact = list(base.half), list(base.exact)
        for name in ("align", "refine"):
            part = getattr(inter, name, None)
            if isinstance(part, OffsetDiversity):
                half += part.down, part.inner, part.fusion
                exact.append(part.offset)
            elif isinstance(part, nn.Module):
                half.append(part)
        if motion.is_conditioned:
            exact.append(motion.mv_condition_prior_encoder)
        return base._replace(half=half, exact=exact)

"""What a configuration file of DCVC-MIP may say: all of DCVC-HEM's, and which parts of MIP there are."""
from dataclasses import dataclass

from config.fields import from_zero, one_of, require
from models.hem.config import HemConfig


@dataclass(frozen=True, kw_only=True)
class MipParams:
    """The switches of DCVC-MIP (sections 3 and 4.3 and supplement); what is absent is off, numbers are the paper's.

    Attributes:
        offset_diversity: warp the finest feature by many refined flows instead of one.
        offset_groups: groups of channels that have flows of their own.
        offset_num: flows of each group.
        offset_magnitude: bound of how far they are from the decoded flow, in pixels.
        motion_guidance: what of the motion decoder helps to predict them: nothing, the decoded flow, or a feature.
        motion_condition: what of this prediction conditions the motion codec at the next frame: nothing, the feature
            that it is made from, or the offsets.
        context_refine: what refines a context: nothing, window attention, or (at 1/4) offset diversity.
        context_refine_scale: 1, 2 or 4, for the context at 1/1, 1/2 or 1/4. None: 4.
        context_refine_heads: of the attention.
        context_refine_kernels: sides of the convolutions before, inside and after the attention; the middle one may
            be 0 for none.
        swin_window, swin_mlp_ratio: side of the windows; hidden channels of the MLPs relative to the others.
        entropy_rstb: window attention in the networks for the parameters of both latents.
        entropy_rstb_heads, entropy_rstb_kernel: likewise of that attention.
    """
    offset_diversity: bool = False
    offset_groups: int = 16
    offset_num: int = 2
    offset_magnitude: int = 40
    motion_guidance: str = one_of("none", "flow", "feature", default="none")
    motion_condition: str = one_of("none", "feature", "offsets", default="none")
    context_refine: str = one_of("none", "tcr", "offset_diversity", default="none")
    context_refine_scale: int | None = one_of(1, 2, 4, default=None)
    context_refine_heads: int = 4
    context_refine_kernels: tuple[int, ...] = from_zero(default=(3, 1, 3))
    swin_window: int = 4
    swin_mlp_ratio: int = 2
    entropy_rstb: bool = False
    entropy_rstb_heads: int = 8
    entropy_rstb_kernel: int = from_zero(default=0)

    def __post_init__(self):
        for key in ("motion_guidance", "motion_condition"):
            value = getattr(self, key)
            require(self.offset_diversity or value == "none",
                    f"{key}: {value} needs offset_diversity: True; set it, or {key}: none")
        require(self.offset_diversity or self.context_refine != "offset_diversity",
                "context_refine: offset_diversity needs offset_diversity: True; set it, or another context_refine")
        require(self.context_refine != "none" or self.context_refine_scale is None,
                f"context_refine_scale: {self.context_refine_scale} has no meaning beside context_refine: none; "
                "leave it out")
        require(self.context_refine != "offset_diversity" or self.context_refine_scale in (None, 4),
                f"context_refine_scale: {self.context_refine_scale} is not possible with context_refine: "
                "offset_diversity; it must be 4")
        require(self.swin_window % 2 == 0, f"swin_window: {self.swin_window} must be even: it is shifted by its half")
        kernels = self.context_refine_kernels
        require(len(kernels) == 3 and kernels[0] % 2 == 1 == kernels[2] % 2 and (kernels[1] % 2 == 1 or not kernels[1]),
                f"context_refine_kernels: {list(kernels)} must be three odd sides, of which the middle one may be 0")
        require(self.entropy_rstb_kernel % 2 == 1 or self.entropy_rstb_kernel == 0,
                f"entropy_rstb_kernel: {self.entropy_rstb_kernel} must be odd, or 0")

    @property
    def refined_scale(self) -> int | None:
        """Where a context is refined: 1, 2 or 4; None where none is."""
        return None if self.context_refine == "none" else self.context_refine_scale or 4


@dataclass(frozen=True, kw_only=True)
class MipConfig(HemConfig):
    """Widths as in DCVC-HEM.

    Attributes:
        MIP_Params: what there is of MIP; nothing by default, which is DCVC-HEM.
    """
    architecture = "DCVC-MIP"
    MIP_Params: MipParams = MipParams()

    def __post_init__(self):
        super().__post_init__()
        mip, full = self.MIP_Params, self.scales[0]
        if mip.offset_diversity:
            for n in (full, *(self.scales[2:3] if mip.context_refine == "offset_diversity" else ())):
                require(n % mip.offset_groups == 0,
                        f"offset_groups: {mip.offset_groups} does not divide {self._named(n)}")
        require(mip.motion_condition != "offsets" or 2 * mip.offset_groups * mip.offset_num == full,
                f"motion_condition: offsets needs 2 * offset_groups * offset_num = {self._named(full)}; it is "
                f"{2 * mip.offset_groups * mip.offset_num}")
        if mip.context_refine == "tcr":
            n = self.scales[(1, 2, 4).index(mip.refined_scale)]
            require(n % mip.context_refine_heads == 0,
                    f"context_refine_heads: {mip.context_refine_heads} does not divide {self._named(n)}")
        if mip.entropy_rstb:
            for width in (self.motion_prior_width, self.prior_width):
                require(width % mip.entropy_rstb_heads == 0, f"entropy_rstb_heads: {mip.entropy_rstb_heads} does not "
                        f"divide {width}, the width of a prior fusion")

    def _named(self, channels: int) -> str:
        """A number of channels with the key that it comes from."""
        return f"{'channel_N' if self.scale_channels is None else 'the channels there'}, {channels}"

    @property
    def motion_prior_width(self) -> int:
        """Channels after the first layer of the network for the parameters of the motion latent."""
        return (3 if self.MIP_Params.motion_condition == "none" else 4) * self.channel_mv

    @property
    def prior_width(self) -> int:
        """Likewise of the frame's latent."""
        return self.prior_channel or 4 * self.channel_M

"""What a configuration file of DCVC-HEM may say. All widths have the released values as defaults."""
from dataclasses import dataclass

from config.fields import require
from models.flow.spynet import MotionEstimationConfig
from models.intra.dcvc_dc import IntraConfig


@dataclass(frozen=True, kw_only=True)
class HemConfig:
    """Widths of all networks (DCVC-HEM, section 3 and supplement).

    Attributes:
        intra_channel: channels of the intra codec and of its latents.
        intra_recon_channel: channels of its decoder's output at full resolution.
        channel_mv: channels of the motion codec and of its latents.
        channel_N: channels of the hyper latent, and of features and contexts at every scale.
        scale_channels: channels of features and contexts at 1/1, 1/2, 1/4 and 1/8 instead, for networks that are narrow
            where pixels are many and wide where they are few; the remembered feature has those of 1/1. With them,
            training from nothing starts with a block transform (initial.py) instead of the release's random weights.
        channel_M: channels of the frame's latent.
        prior_channel: channels inside the networks that predict its distribution, instead of multiples of channel_M.
        recon_channel: channels of the contextual decoder's output at full resolution.
        unet_channels: channels of the U-nets at 1/1, 1/2 and 1/4.
        flow_channels: widths of the four hidden 7x7 convolutions of each level of SPyNet.
        rate_points: None: QP 0..63 are log-linear pieces between the four anchors at 0, 21, 42 and 63. Otherwise
            QP counts so many rate points as the released evaluation places them.
        intra: the intra codec of DCVC-DC in these widths codes I-frames instead of its own.
        motion_estimation: SPyNet in these widths on normalised frames, as in HyTIP, instead of its own.
    """
    intra_channel: int = 192
    intra_recon_channel: int = 16
    channel_mv: int = 64
    channel_N: int = 64
    channel_M: int = 96
    recon_channel: int = 32
    unet_channels: tuple[int, ...] = (32, 64, 128)
    flow_channels: tuple[int, ...] = (32, 64, 32, 16)
    rate_points: int | None = None
    scale_channels: tuple[int, ...] | None = None
    prior_channel: int | None = None
    intra: IntraConfig | None = None
    motion_estimation: MotionEstimationConfig | None = None

    def __post_init__(self):
        for key in ("intra_channel", "channel_mv", "channel_M"):
            require(getattr(self, key) % 2 == 0, f"{key} must be even: the dual spatial prior halves the latent")
        require(len(self.unet_channels) == 3, "unet_channels must have 3 entries, for 1/1, 1/2 and 1/4")
        require(len(self.flow_channels) == 4, "flow_channels must have 4 entries")
        require(self.rate_points is None or self.rate_points >= 2,
                "rate_points must be at least 2, or None for QP 0..63")
        require(self.scale_channels is None or len(self.scale_channels) == 4,
                "scale_channels must have 4 entries, for 1/1, 1/2, 1/4 and 1/8")
        require(self.intra is None or self.rate_points is None,
                "rate_points belongs to DCVC-HEM's own intra codec; leave it or intra out")

    @property
    def scales(self) -> tuple[int, int, int, int]:
        """Channels of features at 1/1, 1/2, 1/4 and 1/8."""
        return self.scale_channels or (self.channel_N,) * 4

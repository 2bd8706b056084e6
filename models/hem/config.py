"""What a configuration file of DCVC-HEM may say. All widths have the released values as defaults."""
from dataclasses import dataclass

from config.fields import require


@dataclass(frozen=True, kw_only=True)
class HemConfig:
    """Widths of all networks (DCVC-HEM, section 3 and supplement).

    Attributes:
        intra_channel: channels of the intra codec and of its latents.
        intra_recon_channel: channels of its decoder's output at full resolution.
        channel_mv: channels of the motion codec and of its latents.
        channel_N: channels of features and contexts, of the remembered feature and of the hyper latent.
        channel_M: channels of the frame's latent.
        recon_channel: channels of the contextual decoder's output at full resolution.
        unet_channels: channels of the U-nets at 1/1, 1/2 and 1/4.
        flow_channels: widths of the four hidden 7x7 convolutions of each level of SPyNet.
        rate_points: None: QP 0..63 are log-linear pieces between the four anchors at 0, 21, 42 and 63. Otherwise
            QP counts so many rate points as the released evaluation places them.
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

    def __post_init__(self):
        for key in ("intra_channel", "channel_mv", "channel_M"):
            require(getattr(self, key) % 2 == 0, f"{key} must be even: the dual spatial prior halves the latent")
        require(len(self.unet_channels) == 3, "unet_channels must have 3 entries, for 1/1, 1/2 and 1/4")
        require(len(self.flow_channels) == 4, "flow_channels must have 4 entries")
        require(self.rate_points is None or self.rate_points >= 2,
                "rate_points must be at least 2, or None for QP 0..63")

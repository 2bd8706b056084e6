"""Intra codec of DCVC-DC (Li et al., CVPR 2023) with 64 interpolated rates.

    frame -> enc_1 -> gain -> enc_2 -> y -> hyper_enc -> z
    z_hat -> hyper_dec -> y_prior_fusion -> step, scale, mean
    y / step -> four passes with y_spatial_prior -> y_hat * step -> dec_1 -> gain -> dec_2 -> refine -> frame

Shapes: frame B 3 H W in [0, 1]; y B N H/16 W/16; z B N at 1/64.
"""
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from config.fields import require
from models.codec import Formats
from models.entropy.coder import Coder
from models.entropy.distributions import Factorized, SmoothNormal
from models.latent import Refine, code_hyper, code_with_parameters, hyper_decoder, hyper_encoder
from models.layers.blocks import Down, GateBlock, Up, conv
from models.layers.formats import log_linear
from models.layers.functional import crop
from models.layers.unet import UNet
from models.rates import RATES
from models.spatial_prior import INTRA_SCHEDULE, passes

ANCHORS = 4
"""Trained rates of a single-rate model."""


@dataclass(frozen=True, kw_only=True)
class IntraConfig:
    """DCVC-DC intra codec (Li et al., CVPR 2023).

    Attributes:
        channel_N: channels of the latent y; a multiple of 4.
        g_ch_2x, g_ch_4x: channels at 1/2 and 1/4.
        g_ch_8x: channels at 1/8; by default `channel_N`.
        g_ch_z: channels of the hyper latent z; by default `channel_N`.
        g_ch_1x: channels at full resolution.
        unet_channels: widths of the refinement network at 1/1, 1/2 and 1/4.
        prior_channel: channels inside the networks that predict y's distribution; by default two or three times
            `channel_N`.
        prior_expansion: hidden channels of their feed-forward blocks, as a multiple of the block's.
        latent_hidden: channels inside the blocks that take in or give out y or its parameters, instead of as many as
            they take in (and a multiple of what they give out): for latents much wider than the networks.
        float32: half precision leaves this codec in float32: for weights that bfloat16 costs too much.
    """
    architecture = "Intra"
    channel_N: int = 256
    g_ch_4x: int = 192
    g_ch_2x: int = 128
    g_ch_1x: int = 16
    unet_channels: tuple[int, ...] = (32, 64, 128)
    g_ch_8x: int | None = None
    g_ch_z: int | None = None
    prior_channel: int | None = None
    prior_expansion: int = 4
    latent_hidden: int | None = None
    float32: bool = False

    @property
    def settings(self) -> dict[str, object]:
        """Those of the codec (`VideoCodec.settings`) that this network adds."""
        return {"intra_float32": True} if self.float32 else {}

    def __post_init__(self):
        require(self.channel_N % 4 == 0, f"channel_N: {self.channel_N} is not a multiple of 4, the channel groups")
        require(len(self.unet_channels) == 3, "unet_channels must have 3 entries")


class _Encoder(nn.Module):
    def __init__(self, c: IntraConfig):
        super().__init__()
        self.enc_1 = nn.Sequential(Down(3, c.g_ch_2x), GateBlock(c.g_ch_2x))
        eighth = c.g_ch_8x or c.channel_N
        self.enc_2 = nn.Sequential(Down(c.g_ch_2x, c.g_ch_4x), GateBlock(c.g_ch_4x), Down(c.g_ch_4x, eighth),
                                   GateBlock(eighth), conv(eighth, c.channel_N, stride=2))

    def forward(self, x: Tensor, gain: Tensor) -> Tensor:
        return self.enc_2(self.enc_1(x) * gain)


class _Decoder(nn.Module):
    def __init__(self, c: IntraConfig):
        super().__init__()
        eighth = c.g_ch_8x or c.channel_N
        self.dec_1 = nn.Sequential(GateBlock(c.channel_N, hidden=c.latent_hidden), Up(c.channel_N, eighth),
                                   GateBlock(eighth), Up(eighth, c.g_ch_4x), GateBlock(c.g_ch_4x),
                                   Up(c.g_ch_4x, c.g_ch_2x))
        self.dec_2 = nn.Sequential(GateBlock(c.g_ch_2x), Up(c.g_ch_2x, c.g_ch_1x))

    def forward(self, y_hat: Tensor, gain: Tensor) -> Tensor:
        return self.dec_2(self.dec_1(y_hat) * gain)


class IntraCodec(nn.Module):
    """Codes a frame on its own.

    Args:
        config: widths.
        interpolated: the rate index counts 64 steps between the first and the last anchor; otherwise it counts
            the four trained anchors.
    """

    def __init__(self, config: IntraConfig, interpolated: bool = True):
        super().__init__()
        n = self.y_channels = config.channel_N
        self.float32 = config.float32
        self.interpolated = interpolated
        self.q_basic_enc = nn.Parameter(torch.ones(1, config.g_ch_2x, 1, 1))
        self.q_scale_enc = nn.Parameter(torch.tensor((0.6, 0.9, 1.25, 1.8)).view(4, 1, 1, 1))
        self.q_basic_dec = nn.Parameter(torch.ones(1, config.g_ch_2x, 1, 1))
        self.q_scale_dec = nn.Parameter(torch.tensor((1.8, 1.25, 0.9, 0.6)).view(4, 1, 1, 1))
        z = config.g_ch_z or n
        double, triple = (config.prior_channel or m * n for m in (2, 3))
        hidden = config.latent_hidden
        block = partial(GateBlock, expansion=config.prior_expansion)
        self.bit_estimator_z = Factorized(z)
        self.enc = _Encoder(config)
        self.hyper_enc = hyper_encoder(GateBlock, n, z, hidden)
        self.hyper_dec = hyper_decoder(GateBlock, z, n, hidden)
        self.y_prior_fusion = nn.Sequential(block(n, double, hidden=hidden), block(double, 3 * n, hidden=hidden))
        self.y_spatial_prior_adaptor_1 = conv(4 * n, triple, 1)
        self.y_spatial_prior_adaptor_2 = conv(4 * n, triple, 1)
        self.y_spatial_prior_adaptor_3 = conv(4 * n, triple, 1)
        self.y_spatial_prior = nn.Sequential(block(triple, triple), block(triple, double),
                                             block(double, 2 * n, hidden=hidden))
        self.y_model = SmoothNormal()
        self.dec = _Decoder(config)
        self.refine = nn.Sequential(UNet(config.g_ch_1x, config.g_ch_1x, GateBlock, config.unet_channels),
                                    conv(config.g_ch_1x, 3))

    def forward(self, coder: Coder, frame: Tensor | None, size: tuple[int, int], qp: int | Tensor) -> Tensor:
        """Code one frame.

        Args:
            frame: B 3 H W, or None when decoding. H and W are multiples of 16.
            size: H and W.
            qp: rate index, 0..63 (0..3 for anchors); an int, or int64 (B,).

        Returns:
            The decoded frame, B 3 H W, unclamped.
        """
        y = None if frame is None else self.enc(frame, self._gain(self.q_basic_enc, self.q_scale_enc, qp))
        size = (size[0] // 16, size[1] // 16)
        z_hat = code_hyper(coder, y, size, self.hyper_enc, self.bit_estimator_z, "iz")
        parameters = crop(self.y_prior_fusion(self.hyper_dec(z_hat)), size)
        adaptors = (self.y_spatial_prior_adaptor_1, self.y_spatial_prior_adaptor_2, self.y_spatial_prior_adaptor_3)

        def refine(n: int) -> Refine:
            return lambda y_hat, *_: self.y_spatial_prior(adaptors[n](torch.cat((y_hat, parameters), 1))).chunk(2, 1)

        y_hat = code_with_parameters(coder, y, parameters, self.y_model, "iy",
                                     self.passes(size, parameters.device), refine)
        return self.refine(self.dec(y_hat, self._gain(self.q_basic_dec, self.q_scale_dec, qp)))

    def formats(self) -> Formats:
        """In channels-last, other sums would turn the one value of the released reports that lies on a rounding tie, so
        it stays contiguous; I-frames are rare."""
        half = () if self.float32 else (self.enc, self.dec, self.refine)
        return Formats(analysis=(self.enc, self.hyper_enc), half=half,
                       exact=(self.enc.enc_2[-1], self.refine[-1]), contiguous=(self,))

    def passes(self, size: tuple[int, int], device: torch.device) -> tuple[Tensor, ...]:
        """Flat positions of each pass into a y of height and width `size`."""
        return passes(INTRA_SCHEDULE, self.y_channels, size, device)

    def _gain(self, basic: Tensor, anchors: Tensor, qp: int | Tensor) -> Tensor:
        """Channel gains times the scalar of the rate: log-linear over 64 steps from the first to the last anchor."""
        if self.interpolated and self.training and anchors.requires_grad and torch.is_grad_enabled():
            # The same to float32 rounding. Whatever is coded takes the float64 path below, as in the release.
            weight = torch.linspace(0, 1, RATES, device=anchors.device).view(-1, 1, 1, 1)
            anchors = torch.lerp(anchors[:1].log(), anchors[-1:].log(), weight).exp()
        elif self.interpolated:
            anchors = log_linear(anchors.detach(), RATES)
        return basic * anchors[qp]

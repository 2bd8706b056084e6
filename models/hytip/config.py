"""What the configuration files of HyTIP may say: one dataclass per network; those of SPyNet and of the intra codec
stand beside them.

A field without a default must stand in the file. Fields with a default are widths that the released files do not
name; the defaults are the released widths. `__post_init__` refuses values that cannot work together.
"""
from dataclasses import dataclass, replace

from config.fields import one_of, require
from models.flow.spynet import MotionEstimationConfig
from models.intra.dcvc_dc import IntraConfig


@dataclass(frozen=True, kw_only=True)
class MotionConfig:
    """Conditional motion codec (HyTIP, section 3.2).

    Attributes:
        channel_mv: channels of encoder and decoder features.
        channel_N: channels of the latent y.
        g_ch_z: channels of the hyper latent z.
        quant_mode: additive noise estimates the rate, rounding gives the output.
        variable_rate: 64 rates by channel gains.
        cond_source: the conditions: the decoded flow, with or without the remembered feature.
        cond_input_dim: channels of the decoded flow.
        enc_cond_dims, dec_cond_dims: channels of the conditions at 1/4 and 1/8.
        cond_kernel_size, cond_scale_list: kernel and stride of the two condition convolutions.
        temp_source: what the temporal prior sees: reference frame and flow, with or without the last latent.
        predprior_input_dim: channels of reference frame and flow.
        predprior_channel: hidden channels of the temporal prior.
        implicit_channel: channels of the remembered feature at 1/4.
        add_fg: a convolution generates the remembered feature even where its width is `channel_mv`.
        no_motion: for ablations: the decoded flow is zero, and zeros are coded.
    """
    architecture = "CondMotion"
    channel_mv: int
    channel_N: int
    g_ch_z: int
    quant_mode: str = one_of("estUN_outR")
    variable_rate: bool
    cond_source: str = one_of("flow_hat", "flow_hat+ref_mv_feature")
    cond_input_dim: tuple[int, ...]
    enc_cond_dims: tuple[int, ...]
    dec_cond_dims: tuple[int, ...]
    cond_kernel_size: tuple[int, ...]
    cond_scale_list: tuple[int, ...]
    temp_source: str = one_of("ref_intensity", "ref_intensity+ref_mv_y")
    predprior_input_dim: int
    predprior_channel: int = 128
    implicit_channel: int | None = None
    add_fg: bool
    no_motion: bool = False

    @property
    def remembers_feature(self) -> bool:
        return self.cond_source == "flow_hat+ref_mv_feature"

    @property
    def remembers_latent(self) -> bool:
        return self.temp_source == "ref_intensity+ref_mv_y"

    def __post_init__(self):
        require(self.cond_input_dim == (2,), "cond_input_dim must be [2], the components of the flow")
        require(self.predprior_input_dim == 5, "predprior_input_dim must be 5: the reference frame and the flow")
        for key in ("enc_cond_dims", "dec_cond_dims", "cond_kernel_size", "cond_scale_list"):
            require(len(getattr(self, key)) == 2, f"{key} must have 2 entries, for 1/4 and 1/8")
        require(self.enc_cond_dims == self.dec_cond_dims,
                 "dec_cond_dims must equal enc_cond_dims: encoder and decoder share the conditions")
        require(self.cond_scale_list == (4, 2), "cond_scale_list must be [4, 2], the scales of the codec")
        require(all(k % 2 for k in self.cond_kernel_size), "cond_kernel_size must be odd")
        if self.remembers_feature:
            require(self.implicit_channel is not None,
                     "implicit_channel is missing: cond_source flow_hat+ref_mv_feature needs it")
            require(self.add_fg or self.implicit_channel == self.channel_mv,
                     f"add_fg: without it, implicit_channel must be channel_mv ({self.channel_mv})")


@dataclass(frozen=True, kw_only=True)
class ChannelTransformConfig:
    """Channel transform module of the inter codec.

    Attributes:
        Add_CTM: whether there is one.
        CTM_depth: blocks.
        CTM_head: attention heads; they divide `CTM_channel`.
        CA_bias: biases in attention and MLP.
        CTM_channel: channels of queries, keys and values; by default `g_ch_16x`.
        CTM_hidden: channels inside the MLP; by default four times `g_ch_16x`.
    """
    Add_CTM: bool
    CTM_depth: int
    CTM_head: int
    CA_bias: bool
    CTM_channel: int | None = None
    CTM_hidden: int | None = None


@dataclass(frozen=True, kw_only=True)
class InterConfig:
    """Context mining and (masked) conditional residual codec (HyTIP, sections 3.3 and 3.4).

    Attributes:
        g_ch_1x ... g_ch_16x: channels at 1/1 ... 1/16; g_ch_16x are those of the latent y.
        g_ch_z: channels of the hyper latent z.
        quant_mode: additive noise estimates the rate, rounding gives the output.
        Pretrain: three heads that turn contexts into frames, for the pre-training of context mining.
        Add_Mask: masked conditional residual coding instead of conditional residual coding.
        no_implicit: no implicit memory (neither ref_feature nor ref_y).
        buffering_type: `hybrid` remembers ref_feature and ref_y; `None` neither.
        feature_channel: channels of ref_feature, at full resolution.
        no_context: a single pass instead of the four-pass context model.
        variable_rate: 64 rates by channel gains.
        CTM_Params: the channel transform module.
        recon_channel: channels of the decoder's full-resolution feature.
        unet_channels: widths of the frame generator's two U-nets at 1/1, 1/2 and 1/4.
        mask_channels: widths of the mask generator at 1/1, 1/2 and 1/4.
        prior_channel: channels inside the networks that predict y's distribution; by default three times `g_ch_16x`.
        prior_expansion: hidden channels of their feed-forward blocks, as a multiple of the block's.
        latent_hidden: channels inside the blocks that take in or give out y or its parameters, instead of as many as
            they take in (and a multiple of what they give out): for latents much wider than the networks.
        latent_kernel: of the decoder's first convolution, from 1/16 to 1/8.
    """
    architecture = "Residual"
    g_ch_1x: int
    g_ch_2x: int
    g_ch_4x: int
    g_ch_8x: int
    g_ch_16x: int
    g_ch_z: int
    quant_mode: str = one_of("estUN_outR")
    Pretrain: bool
    Add_Mask: bool
    no_implicit: bool
    buffering_type: str | None = one_of("hybrid", None)
    feature_channel: int | None = None
    no_context: bool
    variable_rate: bool
    CTM_Params: ChannelTransformConfig | None = None
    recon_channel: int = 32
    unet_channels: tuple[int, ...] = (32, 64, 128)
    mask_channels: tuple[int, ...] = (16, 32, 64)
    prior_channel: int | None = None
    prior_expansion: int = 4
    latent_hidden: int | None = None
    latent_kernel: int = 3

    @property
    def remembers(self) -> bool:
        """Whether there is implicit memory."""
        return self.buffering_type == "hybrid"

    @property
    def has_ctm(self) -> bool:
        return self.CTM_Params is not None and self.CTM_Params.Add_CTM

    def __post_init__(self):
        require(self.no_implicit != self.remembers,
                 "no_implicit must be False with buffering_type hybrid, and True with None")
        require(not self.remembers or self.feature_channel is not None,
                 "feature_channel is missing: buffering_type hybrid needs it")
        require(len(self.unet_channels) == 3, "unet_channels must have 3 entries")
        require(len(self.mask_channels) == 3, "mask_channels must have 3 entries")
        require(self.latent_kernel % 2, "latent_kernel must be odd")
        if self.has_ctm:
            inner = self.CTM_Params.CTM_channel
            named = f"g_ch_16x = {self.g_ch_16x}" if inner is None else f"CTM_channel = {inner}"
            require((inner or self.g_ch_16x) % self.CTM_Params.CTM_head == 0,
                    f"CTM_head: {self.CTM_Params.CTM_head} does not divide {named}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The whole codec."""
    intra: IntraConfig
    motion_estimation: MotionEstimationConfig
    motion: MotionConfig
    inter: InterConfig

    def __post_init__(self):
        require(self.motion.variable_rate == self.inter.variable_rate,
                 "variable_rate differs between the motion and the inter configuration; use files of one step")

    @property
    def variable_rate(self) -> bool:
        return self.inter.variable_rate

    def with_feature_channel(self, channels: int) -> "ModelConfig":
        """With another width of the implicit feature (`--feature_channel`).

        Raises:
            ValueError: there is none.
        """
        require(self.inter.remembers, "this inter configuration has no implicit feature; choose one with "
                                      "buffering_type hybrid, or leave the flag out")
        return replace(self, inter=replace(self.inter, feature_channel=channels))

"""What the configuration files of HyTIP may say: one dataclass per network; those of SPyNet and of the intra codec
stand beside them.

A field without a default must stand in the file. Fields with a default are widths that the released files do not
name; the defaults are the released widths. `__post_init__` refuses values that cannot work together.
"""
from dataclasses import dataclass, replace

from config.fields import one_of, require
from models.flow.spynet import MotionEstimationConfig
from models.intra.dcvc_dc import IntraConfig

FRAMEWORKS = ("residual", "conditional", "conditional_residual", "masked_conditional_residual")


@dataclass(frozen=True, kw_only=True)
class MotionBuffer:
    """What of a frame's motion is remembered (HyTIP supplement, Tables A1 and A2).

    Attributes:
        flow: the decoded flow (explicit, 2 full-resolution channels).
        feature: channels of the implicit feature at 1/4; None without.
        latent: the decoded latent.
    """
    flow: bool
    feature: int | None
    latent: bool

    def __post_init__(self):
        require(self.flow or self.feature is not None, "buffer: without flow it needs a feature, or nothing is left "
                                                       "to condition on")
        require(self.flow or self.latent, "buffer: without flow it needs the latent, which tells P-frames apart from "
                                          "the first one")


@dataclass(frozen=True, kw_only=True)
class InterBuffer:
    """What of a frame is remembered.

    Attributes:
        frame: the decoded frame (explicit, 3 full-resolution channels).
        feature: channels of the implicit feature at full resolution; None without.
        latent: the decoded latent.
    """
    frame: bool
    feature: int | None
    latent: bool

    def __post_init__(self):
        require(self.frame or self.feature is not None, "buffer: without frame it needs a feature, or nothing is left "
                                                        "to predict from")


def _check_released(given: dict, allowed: dict[str, tuple]) -> None:
    """Each released key must be there, with an allowed value, and no `buffer` beside them."""
    require("buffer" not in given, f"buffer says what {', '.join(allowed)} say; use one or the others")
    for key, values in allowed.items():
        require(key in given, f"key {key!r} is missing in model_params")
        value = None if given[key] == "None" else given[key]
        words = "True or False" if values == (True, False) else f"one of {', '.join(map(str, values))}"
        require(any(value is v or (value == v and type(value) is type(v)) for v in values),
                f"model_params.{key}: {value!r} is not allowed; it must be {words}")


@dataclass(frozen=True, kw_only=True)
class MotionConfig:
    """Conditional motion codec (HyTIP, section 3.2).

    Attributes:
        channel_mv: channels of encoder and decoder features.
        channel_N: channels of the latent y.
        g_ch_z: channels of the hyper latent z.
        quant_mode: additive noise estimates the rate, rounding gives the output.
        variable_rate: 64 rates by channel gains.
        buffer: what is remembered. The conditions come of its flow and feature; the temporal prior sees the flow, the
            latent, and the frame where the inter codec remembers it. Released files say `cond_source`,
            `cond_input_dim`, `temp_source`, `predprior_input_dim` and `implicit_channel` instead.
        enc_cond_dims, dec_cond_dims: channels of the conditions at 1/4 and 1/8.
        cond_kernel_size, cond_scale_list: kernel and stride of the two condition convolutions.
        predprior_channel: hidden channels of the temporal prior.
        add_fg: a convolution generates the remembered feature even where its width is `channel_mv`.
        no_motion: for ablations: the decoded flow is zero, and zeros are coded.
    """
    architecture = "CondMotion"
    channel_mv: int
    channel_N: int
    g_ch_z: int
    quant_mode: str = one_of("estUN_outR")
    variable_rate: bool
    buffer: MotionBuffer
    enc_cond_dims: tuple[int, ...]
    dec_cond_dims: tuple[int, ...]
    cond_kernel_size: tuple[int, ...]
    cond_scale_list: tuple[int, ...]
    predprior_channel: int = 128
    add_fg: bool = False
    no_motion: bool = False

    @classmethod
    def from_released(cls, given: dict) -> dict:
        """The parameters with `buffer` for the released keys.

        Raises:
            ValueError: these are incomplete or contradict each other.
        """
        old = ("cond_source", "temp_source", "implicit_channel", "cond_input_dim", "predprior_input_dim")
        if not any(key in given for key in old):
            return given
        _check_released(given, {"cond_source": ("flow_hat", "flow_hat+ref_mv_feature"),
                                "temp_source": ("ref_intensity", "ref_intensity+ref_mv_y"), "add_fg": (True, False)})
        require(given.get("cond_input_dim") == [2], "cond_input_dim must be [2], the components of the flow")
        require(given.get("predprior_input_dim") == 5, "predprior_input_dim must be 5: the reference frame and "
                                                      "the flow")
        feature = given.get("implicit_channel") if given["cond_source"] == "flow_hat+ref_mv_feature" else None
        if given["cond_source"] == "flow_hat+ref_mv_feature":
            require(feature is not None, "implicit_channel is missing: cond_source flow_hat+ref_mv_feature needs it")
            require(given["add_fg"] or feature == given.get("channel_mv"),
                    f"add_fg: without it, implicit_channel must be channel_mv ({given.get('channel_mv')})")
        buffer = {"flow": True, "feature": feature, "latent": given["temp_source"] == "ref_intensity+ref_mv_y"}
        return {**{key: value for key, value in given.items() if key not in old}, "buffer": buffer}

    @property
    def generates_feature(self) -> bool:
        """Whether a convolution makes the remembered feature."""
        return self.buffer.feature is not None and (self.add_fg or self.buffer.feature != self.channel_mv)

    def __post_init__(self):
        for key in ("enc_cond_dims", "dec_cond_dims", "cond_kernel_size", "cond_scale_list"):
            require(len(getattr(self, key)) == 2, f"{key} must have 2 entries, for 1/4 and 1/8")
        require(self.enc_cond_dims == self.dec_cond_dims,
                 "dec_cond_dims must equal enc_cond_dims: encoder and decoder share the conditions")
        require(self.cond_scale_list == (4, 2), "cond_scale_list must be [4, 2], the scales of the codec")
        require(all(k % 2 for k in self.cond_kernel_size), "cond_kernel_size must be odd")


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
        framework: what is coded (arXiv 2510.15426): the `residual` alone, without contexts in encoder, decoder and
            prior; the frame itself under the contexts (`conditional`); the residual under them
            (`conditional_residual`), of a prediction behind a mask (`masked_conditional_residual`). Released files say
            `Add_Mask` for the last two.
        buffer: what is remembered. Released files say `no_implicit`, `buffering_type` and `feature_channel` instead.
        no_context: a single pass instead of the four-pass context model.
        variable_rate: 64 rates by channel gains.
        CTM_Params: the channel transform module.
        recon_channel: channels of the decoder's full-resolution feature.
        clamp_residual: the decoded residual is clamped to [0, 1], as in the release; without that a mask may be near 1.
        unets: U-nets of the frame generator, one behind the other.
        unet_channels: their widths at 1/1, 1/2 and 1/4.
        mask_channels: widths of the mask generator at 1/1, 1/2 and 1/4.
        prior_channel: channels inside the networks that predict y's distribution; by default three times `g_ch_16x`.
        prior_expansion: hidden channels of their feed-forward blocks, as a multiple of the block's.
        latent_hidden: channels inside the blocks that take in or give out y or its parameters, instead of as many as
            they take in (and a multiple of what they give out): for latents much wider than the networks.
        latent_kernel: of the decoder's first convolution, from 1/16 to 1/8.
        float32_contexts: half precision leaves what turns the memory into contexts in float32, whose errors add up from
            frame to frame: for weights that bfloat16 costs too much.
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
    framework: str = one_of(*FRAMEWORKS)
    buffer: InterBuffer
    no_context: bool
    variable_rate: bool
    CTM_Params: ChannelTransformConfig | None = None
    recon_channel: int = 32
    clamp_residual: bool = True
    unets: int = 2
    unet_channels: tuple[int, ...] = (32, 64, 128)
    mask_channels: tuple[int, ...] = (16, 32, 64)
    prior_channel: int | None = None
    prior_expansion: int = 4
    latent_hidden: int | None = None
    latent_kernel: int = 3
    float32_contexts: bool = False

    @classmethod
    def from_released(cls, given: dict) -> dict:
        """The parameters with `framework` and `buffer` for the released keys.

        Raises:
            ValueError: these are incomplete or contradict each other.
        """
        old = ("Add_Mask", "no_implicit", "buffering_type", "feature_channel")
        if not any(key in given for key in old):
            return given
        require("framework" not in given, "framework says what Add_Mask says; use one or the other")
        _check_released(given, {"Add_Mask": (True, False), "no_implicit": (True, False),
                                "buffering_type": ("hybrid", None)})
        hybrid = given["buffering_type"] == "hybrid"
        require(given["no_implicit"] != hybrid,
                "no_implicit must be False with buffering_type hybrid, and True with None")
        feature = given.get("feature_channel") if hybrid else None
        require(not hybrid or feature is not None, "feature_channel is missing: buffering_type hybrid needs it")
        return {**{key: value for key, value in given.items() if key not in old},
                "framework": "masked_conditional_residual" if given["Add_Mask"] else "conditional_residual",
                "buffer": {"frame": True, "feature": feature, "latent": hybrid}}

    @property
    def has_mask(self) -> bool:
        return self.framework == "masked_conditional_residual"

    @property
    def predicts(self) -> bool:
        """Whether there is a predicted frame, which is subtracted and added."""
        return self.framework != "conditional"

    @property
    def context_widths(self) -> tuple[int, int, int]:
        """Channels of the contexts at 1/1, 1/2 and 1/4, as encoder, decoder and prior see them."""
        return (self.g_ch_1x, self.g_ch_2x, self.g_ch_4x) if self.uses_contexts else (0, 0, 0)

    @property
    def uses_contexts(self) -> bool:
        """Whether encoder, decoder and prior see the contexts."""
        return self.framework != "residual"

    @property
    def has_ctm(self) -> bool:
        return self.CTM_Params is not None and self.CTM_Params.Add_CTM

    def __post_init__(self):
        require(len(self.unet_channels) == 3, "unet_channels must have 3 entries")
        require(self.unets >= 1, "unets must be at least 1")
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
        require(self.inter.buffer.feature is not None, "this inter configuration has no implicit feature; choose one "
                                                       "with buffering_type hybrid, or leave the flag out")
        return replace(self, inter=replace(self.inter, buffer=replace(self.inter.buffer, feature=channels)))

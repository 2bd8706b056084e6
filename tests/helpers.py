"""Configurations and models that the tests build, and a coder."""
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from config import load_config
from config.model_file import ModelFile
from models.catalogue import build_codec, find_model
from models.codec import VideoCodec
from models.hytip.codec import HyTIP
from models.hytip.config import InterConfig, IntraConfig, ModelConfig, MotionConfig, MotionEstimationConfig
from seeded import seeded_state, seeded_tensor
from seeded_hem import seeded_entry
from seeded_mip import seeded_weight
from seeded_xct import seeded_value

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "tests" / "tiny"
VARIANTS = {"dcvc-mip": "config/mip", "st-xct": "config/st_xct"}
"""Codecs whose ablations ship as model files, and where."""

MOTION_CONFIGS = ("Motion", "Motion_Explicit", "Motion_Hybrid_B=2.125", "Motion_Hybrid_B=6")
INTER_CONFIGS = ("Inter", "Inter_CRC_Explicit", "Inter_MCR_Explicit", "Inter_MCR_Hybrid_B=5", "Inter_MCR_Hybrid_B=51",
                 "Inter_MCR_Hybrid_B=5_CTM", "Inter_MCR_Hybrid_B=5_CTM_Context")
STEPS = (("Motion_Explicit", "Inter_CRC_Explicit"), ("Motion_Explicit", "Inter_MCR_Explicit"),
         ("Motion_Hybrid_B=6", "Inter_MCR_Explicit"), ("Motion_Hybrid_B=6", "Inter_MCR_Hybrid_B=51"),
         ("Motion_Hybrid_B=2.125", "Inter_MCR_Hybrid_B=51"), ("Motion_Hybrid_B=2.125", "Inter_MCR_Hybrid_B=5"),
         ("Motion_Hybrid_B=2.125", "Inter_MCR_Hybrid_B=5_CTM"),
         ("Motion_Hybrid_B=2.125", "Inter_MCR_Hybrid_B=5_CTM_Context"), ("Motion", "Inter"))
"""The pairs that the training steps use."""

TINY_FLAGS = ("--cond_motion_coder_conf", TINY / "Motion.yml", "--residual_coder_conf", TINY / "Inter.yml",
              "--intra_coder_conf", TINY / "Intra.yml", "--motion_estimation_conf", TINY / "MENet.yml")


class Unrounded:
    """A coder that hands every value on as it is."""

    def code(self, residual, scale, model, name):
        return residual

    def code_z(self, z, prior, size, name):
        return z


def full_config(motion: str = "Motion", inter: str = "Inter") -> ModelConfig:
    """The released widths."""
    folder = ROOT / "config"
    return ModelConfig(intra=load_config(folder / "Intra.yml", IntraConfig),
                       motion_estimation=load_config(folder / "MENet.yml", MotionEstimationConfig),
                       motion=load_config(folder / f"{motion}.yml", MotionConfig),
                       inter=load_config(folder / f"{inter}.yml", InterConfig))


def tiny_config(motion: str = "Motion", inter: str = "Inter") -> ModelConfig:
    """The mechanisms of a released pair at the widths of tests/tiny."""
    full = full_config(motion, inter)
    m, i = load_config(TINY / "Motion.yml", MotionConfig), load_config(TINY / "Inter.yml", InterConfig)
    motion_widths = {key: getattr(m, key) for key in (
        "g_ch_z", "channel_mv", "channel_N", "enc_cond_dims", "dec_cond_dims", "predprior_channel")}
    inter_widths = {key: getattr(i, key) for key in (
        "g_ch_1x", "g_ch_2x", "g_ch_4x", "g_ch_8x", "g_ch_16x", "g_ch_z", "recon_channel", "unet_channels",
        "mask_channels")}
    if full.motion.buffer.feature == full.motion.channel_mv:
        motion_widths["buffer"] = replace(full.motion.buffer, feature=m.channel_mv)
    if full.inter.buffer.feature == full.inter.g_ch_1x:
        inter_widths["buffer"] = replace(full.inter.buffer, feature=i.g_ch_1x)
    if full.inter.has_ctm:
        inter_widths["CTM_Params"] = i.CTM_Params
    return ModelConfig(intra=load_config(TINY / "Intra.yml", IntraConfig),
                       motion_estimation=load_config(TINY / "MENet.yml", MotionEstimationConfig),
                       motion=replace(full.motion, **motion_widths), inter=replace(full.inter, **inter_widths))


def seeded_model(config: ModelConfig, salt: int = 0) -> HyTIP:
    """A model with weights seeded by their released names, frozen for evaluation."""
    model = HyTIP(config)
    for name, root in HyTIP.plain_roots().items():
        network = getattr(model, name)
        network.load_state_dict(seeded_state(network.state_dict(), f"{root}.net.", salt))
    return model.eval().requires_grad_(False)


def tiny_model(name: str) -> ModelFile:
    """A codec of the catalogue at the widths of tests/tiny.

    Args:
        name: `dcvc-hem`, or with a variant that ships, `st-xct/TFE`: that one's switches at tiny sizes.
    """
    codec, _, variant = name.partition("/")
    tiny = find_model(TINY / f"{codec}.yml")
    if not variant:
        return tiny
    shipped = find_model(ROOT / VARIANTS[codec] / f"{variant}.yml").model_params
    params = {key: {**shipped.get(key, {}), **{k: v for k, v in value.items() if not isinstance(v, (bool, str))}}
              if isinstance(value, Mapping) else value for key, value in tiny.model_params.items()}
    return replace(tiny, model_params=params)


def variants() -> list[str]:
    """Names for `tiny_model`."""
    return [f"{codec}/{path.stem}" for codec, folder in VARIANTS.items()
            for path in sorted((ROOT / folder).glob("*.yml"))]


def tiny_codec_model(name: str) -> VideoCodec:
    """The same with seeded weights, frozen for evaluation."""
    codec = build_codec(tiny_model(name))
    seeders = {"hytip": lambda key, released, value: seeded_tensor(released.replace(".module.", "."), value),
               "dcvc-hem": lambda key, released, value: seeded_entry(released, tuple(value.shape)),
               "dcvc-mip": lambda key, released, value: seeded_weight(released, value),
               "st-xct": lambda key, released, value: seeded_value(released, value)}
    state = codec.state_dict()
    seeder = seeders[name.partition("/")[0]]
    codec.load_state_dict({key: seeder(key, codec.released_name(key), value) for key, value in state.items()})
    return codec.eval().requires_grad_(False)

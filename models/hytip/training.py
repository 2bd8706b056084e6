"""What training must know of HyTIP: starting points, initial weights, tables of rates (HyTIP supplement; DCVC-FM).

Names are those of `VideoCodec.plain_roots`, e.g. `CondMotion.mv_encoder.enc_1.0.conv1.weight`.
"""
from models.codec import Pretrained, Rule, Training
from models.hytip.initial import initialise

DCVC_FM = "cvpr2024_video.pth.tar"
SPYNET = "spy_net-sintel-final.pytorch"
INTRA = {False: "cvpr2023_image_psnr.pth.tar", True: "cvpr2023_image_ssim.pth.tar"}
"""File of the intra codec for PSNR and for MS-SSIM."""



def keep(name: str) -> tuple[str, ...]:
    return (name,)


def dropping(*prefixes: str) -> Rule:
    """Drop the entries of some modules."""
    def rule(name: str) -> tuple[str, ...]:
        return () if any(name.startswith(f"{prefix}.") for prefix in prefixes) else (name,)
    return rule


def only(root: str) -> Rule:
    """Take one network and nothing else."""
    return lambda name: (name,) if name.startswith(f"{root}.") else ()


def motion_hybrid(name: str) -> tuple[str, ...]:
    """Step 3: the unconditional adaptor gets its hybrid name; what was conditional on explicit memory is dropped."""
    old = "CondMotion.mv_y_prior_fusion_adaptor_temp_0."
    if name.startswith(("CondMotion.mv_y_prior_fusion_adaptor_temp_1.", "CondMotion.PA.")):
        return ()
    return (name.replace(old, "CondMotion.temp_prior_fusion_adaptor_0."),)


NAMES_OF_PRIORS = (("CondMotion.temp_prior_fusion_adaptor_0.", "CondMotion.mv_y_prior_fusion_adaptor_temp_0."),
                   ("CondMotion.prior_fusion.", "CondMotion.PA."))
"""Of the same networks, with and without a remembered motion latent."""


def neighbour(name: str) -> tuple[str, ...]:
    """From a row of the buffering tables to another: what is the same has the name that the other row gives it.

    What takes in or gives out an implicit feature of another width does not fit, and starts anew. An adaptor of cat(
    ref_feature, frame) fits one of a feature alone that is three channels wider: both have the frame, or what stands
    for it (initial.py), in the last three.
    """
    for pair in NAMES_OF_PRIORS:
        for one, other in (pair, pair[::-1]):
            if name.startswith(one):
                return name, name.replace(one, other, 1)
    return (name,)


def buffering(name: str) -> tuple[str, ...]:
    """The common start of rows of the buffering tables: whatever takes in or gives out what is remembered starts anew.

    It does so in all rows, also in those that the weights come from, so that none has learnt more of it than another.
    """
    return () if name.startswith(REMEMBERING) else neighbour(name)


REMEMBERING = (
    "CondMotion.feature_extractor.", "CondMotion.feature_generator.", "CondMotion.pred_prior.",
    "CondMotion.temp_prior_fusion_adaptor_1.", "CondMotion.mv_y_prior_fusion_adaptor_temp_1.",
    "Residual.feature_adaptor.", "Residual.frame_feature_generator.", "Residual.y_prior_fusion_adaptor_1.")
"""Modules whose inputs or outputs are remembered, or that see what is."""


def frame_types(name: str) -> tuple[str, ...]:
    """Step 7: every frame type starts with the adaptor of type 0."""
    prefix = "Residual.feature_adaptor."
    if not name.startswith(prefix):
        return (name,)
    number, rest = name.removeprefix(prefix).split(".", 1)
    return tuple(f"{prefix}{n}.{rest}" for n in range(3)) if number == "0" else ()


def context(name: str) -> tuple[str, ...]:
    """Step 9: the likelihood model moves under the context model."""
    return (name.replace("Residual.gaussian_conditional.", "Residual.context_model.gaussian_conditional."),)


def dcvc_fm(name: str) -> tuple[str, ...]:
    """Step 1: entries of DCVC-FM, which have no roots, for the motion and the inter codec."""
    if "spatial_prior" in name or name.startswith(("optic_flow", "feature_adaptor", "y_q_")):
        return ()
    if name.startswith("mv_y_prior_fusion_adaptor_"):
        return (f"CondMotion.{name.replace('fusion_adaptor_', 'fusion_adaptor_temp_', 1)}",)
    if name.startswith("mv_y_prior_fusion."):
        return (f"CondMotion.{name.replace('mv_y_prior_fusion', 'PA', 1)}",)
    return (f"CondMotion.{name}",) if name.startswith("mv") else (f"Residual.{name}",)


RULES: dict[str, Rule] = {
    "CRC_to_MCR": keep,
    "Motion_Hybrid": motion_hybrid,
    "Inter_Hybrid": keep,
    "ReduceMotionBufferSize": dropping("CondMotion.feature_generator", "CondMotion.feature_extractor.fusion"),
    "ReduceInterBufferSize": dropping("Residual.frame_feature_generator", "Residual.feature_adaptor"),
    "FA": frame_types,
    "CTM": keep,
    "context": context,
    "Variable": keep,
    "LongSequence": keep,
    "intra": only("if_model"),
    "same": keep,
    "neighbour": neighbour,
    "buffering": buffering}
"""`--restore` -> what happens to the entries of the step before; the last four are not of the released recipe."""


def pretrained(ssim: bool) -> tuple[Pretrained, ...]:
    """Step 1: DCVC-FM for the codecs, SPyNet, and the intra codec of DCVC-DC."""
    return (Pretrained(DCVC_FM, dcvc_fm, None, "the DCVC-FM release of github.com/microsoft/DCVC"),
            Pretrained(SPYNET, lambda name: (f"MENet.{name}",), "motion_estimation",
                       "the release page of github.com/NYCU-MAPL/HyTIP"),
            Pretrained(INTRA[ssim], lambda name: (f"if_model.{name}",), "intra",
                       "the DCVC-DC release of github.com/microsoft/DCVC"))


TRAINING = Training(initialise=initialise, rules=RULES, pretrained=pretrained)

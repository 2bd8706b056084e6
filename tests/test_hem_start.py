"""DCVC-HEM and its relatives in widths of each scale: the computed start, and networks taken over from HyTIP."""
from dataclasses import replace

import pytest
import torch

from dataloader.open import FirstFrames
from dataloader.source import PngFolder
from helpers import ROOT, TINY, Unrounded
from models.catalogue import build_codec, codec_class, configure, find_model
from models.codec import FrameHeader
from models.entropy.coder import Estimator, Recorder, Replayer
from models.hem.codec import DCVCHEM
from models.hem.config import HemConfig
from models.hytip.codec import HyTIP
from models.mip.codec import DCVCMIP
from models.mip.config import MipConfig, MipParams
from models.st_xct.codec import STXCT
from models.st_xct.config import LargePlace, PriorPlace, SmallPlace, XctConfig, XctParams
from seeded import seeded_video
from seeded_mip import ROWS, row_config
from util.demo import CLIP
from util.training.network import TrainedNetwork
from util.training.starting_points import carry_over

SMALL = find_model(ROOT / "config" / "small" / "dcvc-mip.yml")
HYTIP = find_model(ROOT / "config" / "small" / "hytip.yml")
SIZE = (128, 192)


def started(codec_type: type[DCVCHEM], config: HemConfig) -> DCVCHEM:
    codec = codec_type(config).eval()
    torch.manual_seed(0)
    codec.for_training().initialise(codec, (0.0005, 0.05))
    return codec.requires_grad_(False)


@pytest.fixture(scope="module")
def config() -> MipConfig:
    return configure(SMALL)


@pytest.fixture(scope="module")
def mip(config) -> DCVCMIP:
    return started(DCVCMIP, config)


@pytest.fixture(scope="module")
def frames() -> list[torch.Tensor]:
    """Of the demo clip, 1 3 128 192."""
    return [frame[None, :, 56:56 + SIZE[0], 100:100 + SIZE[1]] / 255 for frame in FirstFrames(PngFolder(CLIP), 5)]


def p_frames(codec, frames, coder=Unrounded) -> list[torch.Tensor]:
    """Of a group whose I-frame is the original."""
    memory, decoded = codec.remember_frame(frames[0]), []
    for frame in frames[1:]:
        coded = codec.code_frame(coder(), frame, memory, FrameHeader(intra=False, qp=63, size=SIZE))
        memory = coded.memory
        decoded.append(coded.frame)
    return decoded


@pytest.mark.parametrize("kind", ["mip", "hem", "xct"])
def test_untrained_p_frames_come_back(config, mip, frames, kind):
    """The transform of what the warped reference lacks, without rounding and with it; other parts add nothing."""
    shared = {key: value for key, value in vars(config).items() if key in HemConfig.__dataclass_fields__}
    transformers = XctParams(Add_TFE=True, Add_THEM=True, Add_TFD=True, THEM=PriorPlace(blocks=1, heads=4))
    codec = {"mip": lambda: mip, "hem": lambda: started(DCVCHEM, HemConfig(**shared)),
             "xct": lambda: started(STXCT, XctConfig(**shared, XCT_Params=transformers))}[kind]()
    for coder, wanted in ((Unrounded, 46.0), (Estimator, 40.0)):
        for frame, decoded in zip(frames[1:], p_frames(codec, frames, coder)):
            assert -10 * (decoded - frame).square().mean().log10() > wanted


def test_a_scene_that_stands_still_stays_as_it_is(mip, frames):
    """Nothing is added to what passes, so nothing fades."""
    last = p_frames(mip, [frames[0]] * 5)[-1]
    assert -10 * (last - frames[0]).square().mean().log10() > 50


def test_the_motion_codec_carries_a_translation(mip):
    flow = torch.tensor((3.25, -7.5)).view(1, 2, 1, 1).expand(1, 2, *SIZE).contiguous()
    step = mip.step(mip.motion.mv_y_q_scale, FrameHeader(intra=False, qp=63, size=SIZE))
    decoded = mip.motion(Unrounded(), flow, mip.remember_frame(torch.zeros(1, 3, *SIZE)), step).flow_hat
    inner = decoded[..., 16:-16, 16:-16]
    assert (inner - flow[..., 16:-16, 16:-16]).abs().max() < 0.05


def test_steps_span_the_lambdas(mip):
    """Ten to one, as the root of 0.05 over 0.0005; the last is 1."""
    for anchors in (mip.motion.mv_y_q_scale, mip.inter.y_q_scale):
        assert anchors.flatten().tolist() == pytest.approx([10, 10 ** (2 / 3), 10 ** (1 / 3), 1], rel=1e-5)


def test_released_widths_start_as_released(monkeypatch):
    """The computed start is for networks that widen towards the latents alone."""
    monkeypatch.setattr("models.hem.initial.initialise", lambda *args: pytest.fail("computed"))
    tiny = find_model(TINY / "dcvc-hem.yml")
    codec = build_codec(tiny)
    codec.for_training().initialise(codec, None)
    assert codec.inter.contextual_encoder.conv1.bias.unique().tolist() == pytest.approx([0.01])


def roundtrip(codec, frames: int = 3):
    """Code, then decode from the symbols alone; the decoder's memory at the end."""
    memory, sent = None, []
    for n, frame in enumerate(seeded_video(frames, *SIZE, 1)[:, None]):
        header, coder = FrameHeader(intra=n == 0, qp=20, size=SIZE), Recorder()
        coded = codec.code_frame(coder, frame, memory, header)
        memory = coded.memory
        sent.append((header, coder.symbols, coded.frame))
    memory = None
    for header, symbols, expected in sent:
        coded = codec.code_frame(Replayer(symbols), None, memory, header)
        memory = coded.memory
        assert torch.equal(coded.frame, expected)
    return memory


def test_what_is_coded_is_decoded(mip):
    """Every part in another width than the next one."""
    assert roundtrip(mip).buffer_size(decoder=True) == 8 + 8 / 4 + (160 + 24) / 256


UNEQUAL = {"intra_channel": 8, "intra_recon_channel": 4, "channel_mv": 8, "channel_N": 6, "channel_M": 12,
           "recon_channel": 4, "unet_channels": (4, 6, 8), "flow_channels": (4, 8, 4, 4), "prior_channel": 16,
           "scale_channels": (8, 12, 16, 20)}
"""No two of them alike where it matters."""


@pytest.mark.parametrize("row", ROWS)
def test_rows_of_mip_in_unequal_widths(row):
    switches = row_config(row).MIP_Params
    params = replace(switches, offset_groups=2, offset_num=2, entropy_rstb_heads=2)
    roundtrip(started(DCVCMIP, MipConfig(**UNEQUAL, MIP_Params=params)))


def test_transformers_in_unequal_widths():
    """ST-XCT's, at all of its places."""
    params = XctParams(Add_TFE=True, Add_THEM=True, Add_TFD=True, THEM=PriorPlace(blocks=1, heads=2),
                       **{f"{place}_large": LargePlace(blocks=1) for place in ("TFE", "TFD")},
                       **{f"{place}_small": SmallPlace(blocks=1) for place in ("TFE", "TFD")})
    roundtrip(started(STXCT, XctConfig(**UNEQUAL, XCT_Params=params)))
    with pytest.raises(ValueError, match=r"TFE_large.heads 5 must divide the 12 channels there \(scale_channels\)"):
        XctConfig(**UNEQUAL, XCT_Params=replace(params, TFE_large=LargePlace(blocks=1, heads=5)))


def test_intra_codec_and_flow_of_a_hytip(config):
    """Taken over by name: the same symbols cost the same bits, the same frames have the same flow."""
    torch.manual_seed(1)
    source = build_codec(HYTIP).eval()
    source.for_training().initialise(source, (0.0005, 0.05))
    codec = DCVCMIP(config).eval()
    names = dict(HyTIP.plain_roots())
    entries = {f"{names[root]}.{rest}": value for root, rest, value in
               ((*name.split(".", 1), value) for name, value in source.state_dict().items())}
    report = carry_over(TrainedNetwork(codec), entries, codec.for_training().rules["hytip"])
    assert {name.split(".")[0] for name in report.loaded} == {"intra", "motion_estimation"}
    assert len(report.loaded) == sum(name.startswith(("intra.", "motion_estimation.")) for name in codec.state_dict())
    first, second = seeded_video(2, *SIZE, 2)[:, None]
    for qp in (0, 33):
        ours, theirs = Estimator(), Estimator()
        header = FrameHeader(intra=True, qp=qp, size=SIZE)
        with torch.no_grad():
            assert torch.equal(codec.code_frame(ours, first, None, header).frame,
                               source.code_frame(theirs, first, None, header).frame)
        assert all(torch.equal(ours.bits[name], theirs.bits[name]) for name in ("iy", "iz"))
    with torch.no_grad():
        source.motion_estimation.config = codec.motion_estimation.config     # this one's flows are not fitted to blocks
        assert torch.equal(codec.motion_estimation(second, first), source.motion_estimation(second, first))


@pytest.mark.parametrize("changes, message", [
    ({"scale_channels": (8, 16, 32)}, "scale_channels must have 4 entries"),
    ({"rate_points": 4}, "rate_points belongs to DCVC-HEM's own intra codec"),
    ({"scale_channels": (6, 16, 32, 96)}, "offset_groups: 4 does not divide the channels there, 6"),
    ({"scale_channels": (8, 16, 30, 96)}, "context_refine_heads: 4 does not divide the channels there, 30"),
    ({"MIP_Params": MipParams(offset_diversity=True, offset_groups=8, context_refine="offset_diversity"),
      "scale_channels": (8, 16, 20, 96)}, "offset_groups: 8 does not divide the channels there, 20")])
def test_impossible_widths(config, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(config, **changes)


def test_the_file_names_networks_of_hytip(config):
    assert codec_class(SMALL) is DCVCMIP
    hytip = configure(HYTIP)
    assert config.intra == hytip.intra
    assert config.motion_estimation == replace(hytip.motion_estimation, block_side=None)

"""How DCVC-MIP learns: every weight, through the condition, and what it starts from."""
from dataclasses import replace

import pytest
import torch

from models.codec import FrameHeader
from models.entropy.coder import Recorder
from models.entropy.training import SampleNoise
from models.layers.offset_diversity import OffsetDiversity
from models.layers.windows import WindowLayer
from models.mip.codec import DCVCMIP
from models.mip.training import pretrained
from seeded import seeded_video
from seeded_hem import seeded_hem
from seeded_mip import seeded_mip, tiny_config
from util.training.losses import Distortion
from util.training.network import TrainedNetwork
from util.training.stages import ClipCoder, Clips, StagePlan
from util.training.starting_points import carry_over

SIZE = (64, 64)


def terms_of(codec, p_frames: int, through: bool) -> list[dict[str, torch.Tensor]]:
    both = torch.stack([seeded_video(p_frames + 1, *SIZE, salt) for salt in (21, 22)])
    clips = Clips(both, torch.tensor((0, 63)), SampleNoise(torch.tensor((1, 2))))
    plan = StagePlan(stage="fullgop", p_frames=p_frames, detach_frame=not through, detach_flow=False,
                     frame_types=(0,) * (p_frames + 1), terms=frozenset({"rate", "m_rate", "distortion"}))
    return ClipCoder(codec, plan, Distortion())(clips)


@pytest.mark.parametrize("row", ["D_offsets", "E", "D_od4", "D_entropy"])
def test_every_weight_learns(row):
    codec = seeded_mip(tiny_config(row)).train().requires_grad_(True)
    sum((each["rate"] + 100 * each["distortion"]).sum() for each in terms_of(codec, 2, through=True)).backward()
    for name, parameter in codec.named_parameters():
        if not name.startswith("intra."):
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert parameter.grad.any() or ".fc." in name or "q_scale" in name, name


@pytest.mark.parametrize("row, reached", [("C", False), ("D", True)])
def test_motion_bits_of_a_later_frame_teach_the_offsets_of_an_earlier_one(row, reached):
    """Where frames are cut, the condition is the only way from one frame's offsets to the next one's motion."""
    codec = seeded_mip(tiny_config(row)).train().requires_grad_(True)
    terms_of(codec, 3, through=False)[-1]["m_rate"].sum().backward()
    gradient = codec.inter.align.down.weight.grad
    assert (gradient is not None and bool(gradient.any())) == reached


def test_initial_values():
    codec = DCVCMIP(tiny_config("E"))
    codec.for_training().initialise(codec, None)
    for module in codec.modules():
        if isinstance(module, OffsetDiversity):
            assert not module.offset.weight.any() and not module.offset.bias.any()
        elif isinstance(module, WindowLayer):
            table = module.relative_position_bias_table
            assert 0.015 < table.std() < 0.025 and table.abs().max() <= 2
            assert not (module.fc1.bias == 0.01).any()
    assert not codec.inter.refine.conv_out.weight.any() and not codec.inter.refine.conv_out.bias.any()
    assert (codec.motion.mv_condition_prior_encoder[0].bias == 0.01).all()


def from_base(row: str, released: bool) -> DCVCMIP:
    """A row that starts from weights of DCVC-HEM: of a training here, or in the authors' files."""
    base, codec = seeded_hem(), DCVCMIP(tiny_config(row))
    network = TrainedNetwork(codec)
    if released:
        image, video = pretrained(ssim=False)
        names = {base.released_name(name): value for name, value in base.state_dict().items()}
        for source, root in ((image, "image."), (video, "video.")):
            flat = {name.removeprefix(root): value for name, value in names.items() if name.startswith(root)}
            carry_over(network, flat, source.rule)
    else:
        carry_over(network, dict(TrainedNetwork(base).entries()), codec.for_training().rules["base"])
    return codec.eval().requires_grad_(False)


@pytest.mark.parametrize("row, released", [("A", False), ("B", False), ("E", False), ("E", True), ("D_od4", False)])
def test_from_the_base_it_predicts_as_the_base(row, released):
    """Motion latents before quantisation, contexts, and frames where the motion is the same."""
    base, codec = seeded_hem(), from_base(row, released)
    fresh = DCVCMIP(tiny_config(row)).motion.mv_y_prior_fusion[4].weight
    assert fresh.shape != base.motion.mv_y_prior_fusion[4].weight.shape or \
        not torch.equal(codec.motion.mv_y_prior_fusion[4].weight, base.motion.mv_y_prior_fusion[4].weight)
    clip, header = seeded_video(3, *SIZE, 31), FrameHeader(False, 21, SIZE)
    memory = base.remember_frame(clip[:1])
    first = base.code_frame(Recorder(), clip[1:2], memory, header).memory
    own = codec.make_memory(**first.tensors())
    if row in ("E", "D_od4"):
        own = replace(own, condition=torch.randn(1, 8, SIZE[0] // 2, SIZE[1] // 2))
    flow = base.motion_estimation(clip[2:], first.frame)
    assert torch.equal(flow, codec.motion_estimation(clip[2:], own.frame))
    torch.testing.assert_close(codec.motion.analyse(flow, own), base.motion.analyse(flow, first))
    y_hat = torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    motions = [each.motion.synthesise(y_hat) for each in (base, codec)]
    expected, actual = base.inter.predict(first, motions[0]), codec.inter.predict(own, motions[1])
    for a, b in zip(expected.contexts, actual.contexts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    frames = [each.inter(Recorder(), clip[2:], expected, memory, torch.tensor(1.0)).frame for each in (base, codec)
              if row != "D_entropy"]
    assert torch.equal(*frames)


def test_what_the_condition_joins_starts_without_it():
    base, codec = seeded_hem(), from_base("D", released=False)
    for layer in ("conv1", "downsample"):
        own, old = getattr(codec.motion.mv_encoder[2], layer).weight, getattr(base.motion.mv_encoder[2], layer).weight
        assert torch.equal(own[:, :8], old) and not own[:, 8:].any() and own.shape[1] == 16


def test_all_is_taken_over_but_what_is_new():
    codec, base = DCVCMIP(tiny_config("E")), seeded_hem()
    report = carry_over(TrainedNetwork(codec), dict(TrainedNetwork(base).entries()), codec.for_training().rules["base"])
    assert {name.split(".")[1] for name in report.dropped} == {"mv_y_prior_fusion"}
    new = {".".join(name.split(".")[:2]) for name in codec.state_dict().keys() - set(report.loaded)}
    assert new == {"inter.align", "inter.refine", "motion.mv_condition_prior_encoder", "motion.mv_y_prior_fusion"}

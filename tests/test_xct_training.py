"""How ST-XCT learns: every weight, both slots, and what it starts from."""
import pytest
import torch

from helpers import tiny_codec_model, tiny_model
from models.catalogue import build_codec
from models.codec import FrameHeader, VideoCodec
from models.entropy.coder import Recorder
from models.entropy.training import SampleNoise, TrainingEstimator
from models.st_xct.blocks import Fuse
from models.st_xct.codec import STXCT
from models.st_xct.slots import SlotConv
from seeded import seeded_video
from seeded_hem import seeded_hem
from util.training.network import TrainedNetwork
from util.training.phases import TRAIN_CFG, read_phases
from util.training.schedule import read_schedule
from util.training.starting_points import carry_over

SIZE = (64, 64)
LAMBDA = 0.038754 * 255 ** 2


def loss_of(codec: VideoCodec, clip: torch.Tensor, noise: int) -> torch.Tensor:
    """Mean over P-frames of rate + lambda * distortion, at the highest rate, behind the original first frame."""
    memory, losses = codec.remember_frame(clip[:1]), []
    for frame in clip[1:].split(1):
        coder = TrainingEstimator(SampleNoise(torch.tensor((noise,))))
        coded = codec.code_frame(coder, frame, memory, FrameHeader(False, 63, SIZE))
        losses.append(sum(bits.sum() for bits in coder.bits.values()) / frame[:, 0].numel()
                      + LAMBDA * (coded.frame - frame).square().mean())
        memory = coded.memory
    return torch.stack(losses).mean()


@pytest.mark.parametrize("variant", ["st-xct/all", "st-xct/all_depthwise"])
def test_every_weight_learns(variant):
    """Temperatures, branches of gates, all slices in time, both slots of each place."""
    codec = tiny_codec_model(variant).train().requires_grad_(True)
    slots = {}
    for name, part in codec.inter.named_modules():
        if isinstance(part, Fuse):
            part.register_full_backward_hook(lambda _, into, out, name=name: slots.update({name: into}))
    loss_of(codec, seeded_video(3, *SIZE, 21), 1).backward()
    assert len(slots) == 5
    for name, gradients in slots.items():
        assert len(gradients) == 2 and all(gradient.isfinite().all() and gradient.any() for gradient in gradients), name
    branches = {"branch_in": 2, "branch_conv": 2, "qkv": 3, "qkv_conv": 3}
    for name, part in codec.inter.named_modules():
        if isinstance(part, SlotConv):
            for branch in part.weight.grad.chunk(branches.get(name.split(".")[-1], 1)):
                assert branch.isfinite().all() and all(own.any() for own in branch.unbind(2)), name
    for name, parameter in codec.inter.named_parameters():
        if ".xct_" in f".{name}":
            assert parameter.grad.isfinite().all() and parameter.grad.any(), name
            if name.endswith("temperature"):
                assert parameter.grad.all(), name


def from_base(variant: str, released: bool) -> STXCT:
    """A variant that starts from weights of DCVC-HEM: of a training here, or in the authors' files."""
    base, codec = seeded_hem(), build_codec(tiny_model(variant))
    codec.for_training().initialise(codec, None)
    network = TrainedNetwork(codec)
    if released:
        names = {base.released_name(name): value for name, value in base.state_dict().items()}
        for source, root in zip(codec.for_training().pretrained(False), ("image.", "video.")):
            flat = {name.removeprefix(root): value for name, value in names.items() if name.startswith(root)}
            assert not carry_over(network, flat, source.rule).dropped
    else:
        report = carry_over(network, dict(TrainedNetwork(base).entries()), codec.for_training().rules["base"])
        assert not report.dropped
    return codec.eval().requires_grad_(False)


@pytest.mark.parametrize("variant, released", [("st-xct/all", True), ("st-xct/all_depthwise", False),
                                               ("st-xct/THEM", True), ("st-xct/base", True)])
def test_from_weights_of_the_base_it_codes_as_the_base(variant, released):
    clip, found = seeded_video(2, *SIZE, 31), []
    for codec in (seeded_hem(), from_base(variant, released)):
        coder = Recorder()
        frame = codec.code_frame(coder, clip[1:], codec.remember_frame(clip[:1]), FrameHeader(False, 21, SIZE)).frame
        found.append((frame, coder))
    (expected, symbols), (actual, own) = found
    assert torch.equal(actual, expected) and symbols.bits == own.bits
    assert all(torch.equal(x, y) for (_, x), (_, y) in zip(symbols.symbols, own.symbols, strict=True))


@pytest.mark.parametrize("recipe, start", [("schedule", "scratch"), ("from_hem", "load_pretrained")])
def test_recipes(recipe, start):
    steps = read_schedule(TRAIN_CFG / "st_xct" / f"{recipe}.yml")
    assert [step.restore for step in steps] == [start, *["same"] * (len(steps) - 1)]
    network = TrainedNetwork(build_codec(tiny_model("st-xct")))
    for step in steps:
        for phase in read_phases(step.train_conf):
            chosen = network.select(phase)
            assert phase.stage == "intra" or phase.mode == "motion" or any(".xct_" in name for name in chosen)
    assert chosen.keys() == dict(network.trainable_candidates()).keys(), "at last all of a P-frame"

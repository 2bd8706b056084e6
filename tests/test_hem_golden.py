"""DCVC-HEM against tensors of the released system: seeded weights, salt 0, float32 on a CPU."""
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.codec import CodedFrame, FrameHeader
from models.entropy.coder import Recorder, Replayer
from models.hem.config import HemConfig
from models.hem.rates import steps_of
from models.spatial_prior import DUAL_SCHEDULE, passes
from seeded import seeded_video
from seeded_hem import seeded_hem

DATA = Path(__file__).parent / "data" / "hem"
TENSORS, BITS = 1e-5, 1e-6          # largest absolute error of a tensor, relative error of bits
CASES = [("rates_64x128", 0), ("rates_64x128", 1), ("rates_64x128", 2), ("padded_70x118", 0)]


class Witness(Recorder):
    """A recorder that also keeps the scales of every call."""

    def __init__(self):
        super().__init__()
        self.scales: list[tuple[str, torch.Tensor]] = []

    def code(self, residual, scale, distribution, name):
        self.scales.append((name, scale))
        return super().code(residual, scale, distribution, name)


@pytest.fixture(scope="module")
def codec():
    return seeded_hem(HemConfig())


def golden(case: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{case}.npz") as file:
        return dict(file)


def assert_close(actual: torch.Tensor, expected: np.ndarray, what: str) -> None:
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=TENSORS, err_msg=what)


def in_place(calls: list[tuple[str, torch.Tensor]], name: str, channels: int, size: tuple[int, int]) -> torch.Tensor:
    """The values of both passes where they belong, 1 C h w."""
    own = [values for called, values in calls if called == name]
    where = passes(DUAL_SCHEDULE, channels, size, torch.device("cpu"))
    result = torch.full((1, channels * size[0] * size[1]), torch.nan)
    for positions, values in zip(where, own, strict=True):
        result[:, positions] = values
    return result.view(1, channels, *size)


def assert_latents(codec, header: FrameHeader, coder: Witness, expected: dict[str, np.ndarray]) -> None:
    """Symbols, scales and bits of a frame."""
    for latent in codec.latents(header.intra):
        own = [values for name, values in coder.symbols if name == latent.name]
        root = "mv_" if latent.name[0] == "m" else ""
        if latent.name[1] == "z":
            assert np.array_equal(own[0].numpy(), expected[root + "z_hat"])
        else:
            channels, *size = latent.shape(header.size)
            assert np.array_equal(in_place(coder.symbols, latent.name, channels, tuple(size)), expected[root + "y_q"])
            assert_close(in_place(coder.scales, latent.name, channels, tuple(size)), expected[root + "scales"],
                         latent.name)
        bits = float(expected[f"bits_{root}{latent.name[1]}"])
        assert coder.bits[latent.name].item() == pytest.approx(bits, rel=BITS), latent.name


def assert_p_frame(coded: CodedFrame, contexts: tuple[torch.Tensor, ...], expected: dict[str, np.ndarray]) -> None:
    """Motion, contexts and memory of a P-frame."""
    assert_close(coded.views["flow"][..., ::2, ::2], expected["est_mv"], "flow")
    assert_close(coded.views["decoded_flow"][..., ::2, ::2], expected["mv_hat"], "decoded_flow")
    for context, (what, step) in zip(contexts, (("context1", 8), ("context2", 4), ("context3", 2)), strict=True):
        assert_close(context[:, ::8, ::step, ::step], expected[what], what)
    for what in ("ref_y", "ref_mv_y"):
        assert_close(getattr(coded.memory, what), expected[what], what)
    assert_close(coded.memory.ref_feature[:, ::8, ::8, ::8], expected["ref_feature"], "ref_feature")


@pytest.mark.parametrize("case, rate", CASES, ids=[f"{case}-{rate}" for case, rate in CASES])
def test_sequence(codec, monkeypatch, case, rate):
    """A group of frames at one rate, memory included."""
    file = golden(case)
    qp, points = map(int, file["rates"][rate])
    monkeypatch.setattr(codec, "config", replace(codec.config, rate_points=points))
    monkeypatch.setattr(codec.intra, "rate_points", points)
    clip = seeded_video(*(int(file[key]) for key in ("frames", "height", "width", "clip_salt")))
    contexts = []
    hook = codec.inter.context_fusion_net.register_forward_hook(lambda _, args, output: contexts.append(output))
    memory = replayed = None
    for n, frame in enumerate(clip):
        prefix = f"r{rate}_f{n}_"
        expected = {key.removeprefix(prefix): value for key, value in file.items() if key.startswith(prefix)}
        padded, coder = codec.grid.pad(frame[None]), Witness()
        header = FrameHeader(intra=n == 0, qp=qp, size=tuple(padded.shape[-2:]))
        coded = codec.code_frame(coder, padded, memory, header)
        memory = coded.memory
        cropped = coded.frame[..., :frame.shape[-2], :frame.shape[-1]]
        shown = cropped if expected["x_hat"].shape == cropped.shape else cropped[..., ::2, ::2]
        assert_close(shown, expected["x_hat"], "x_hat")
        psnr = -10 * (cropped - frame).square().mean().log10().item()
        assert psnr == pytest.approx(float(expected["psnr"]), abs=1e-4)
        assert_latents(codec, header, coder, expected)
        if n > 0:
            assert_p_frame(coded, contexts[-1], expected)
        if case == "padded_70x118":                                     # decoding at one rate is enough
            replayer = Replayer(coder.symbols)
            decoded = codec.code_frame(replayer, None, replayed, header)
            replayer.finish()
            assert torch.equal(decoded.frame, coded.frame)
            replayed = decoded.memory
    hook.remove()


def test_bits_of_single_symbols(codec):
    """Every combination of symbol and raw scale, and every channel of the factorised priors."""
    expected = golden("entropy")
    q, scale = torch.broadcast_tensors(torch.from_numpy(expected["q"])[:, None], torch.from_numpy(expected["scale"]))
    near = expected["scale"] <= 5                          # differences of cumulatives cancel in float32
    for distribution, what in ((codec.inter.y_model, "laplace_bits"), (codec.motion.y_model, "laplace_bits"),
                               (codec.intra.y_model, "normal_bits")):
        bits = distribution.bits(q, scale).numpy()
        np.testing.assert_allclose(bits[:, near], expected[what][:, near], rtol=0, atol=1e-4)
        np.testing.assert_allclose(bits, expected[what], rtol=0, atol=5e-3)
    z = torch.from_numpy(expected["z"])[None, None, :, None]
    for prior, what in ((codec.intra.bit_estimator_z, "z_bits_image"), (codec.inter.bit_estimator_z, "z_bits_video"),
                        (codec.motion.bit_estimator_z_mv, "z_bits_video_mv")):
        bits = prior.bits(z.expand(1, prior.channels, -1, 1))[0, :, :, 0]
        np.testing.assert_allclose(bits.numpy(), expected[what], rtol=0, atol=1e-4)


@pytest.mark.parametrize("points", [2, 3, 6])
def test_released_rate_points(points):
    expected = golden("entropy")
    steps = steps_of(torch.from_numpy(expected["anchors"]).view(4, 1, 1, 1), points).flatten()
    np.testing.assert_allclose(steps, expected[f"interpolated_{points}"], rtol=1e-7)


def entries(codec, root: str) -> list[str]:
    return ["\t".join((codec.released_name(name).removeprefix(root + "."), str(value.dtype).removeprefix("torch."),
                       "x".join(map(str, value.shape))))
            for name, value in codec.state_dict().items() if codec.released_name(name).startswith(root + ".")]


@pytest.mark.parametrize("root, count, parameters", [("image", 175, 31_168_967), ("video", 406, 17_523_323)])
def test_state_dict(codec, root, count, parameters):
    expected = (DATA / f"{root}.tsv").read_text().splitlines()
    assert len(expected) == count
    assert sorted(entries(codec, root)) == sorted(expected)
    assert parameters == sum(value.numel() for name, value in codec.named_parameters()
                             if codec.released_name(name).startswith(root + "."))

"""One coding path: what an estimator saw, replayed without a source, gives the same frames and memory."""
from dataclasses import replace

import pytest
import torch

from helpers import STEPS, full_config, seeded_model, tiny_config
from models.codec import CodedFrame
from models.entropy.coder import Estimator, Recorder, Replayer
from models.hytip.codec import HyTIP
from models.hytip.memory import HybridMemory as Memory
from seeded import seeded_video
from util.coding.gop import CodingPlan

PLAN = CodingPlan(qp=21, intra_qp=2, gop=8, reset_interval=3, scene_cuts=frozenset({5}))


def code(model: HyTIP, clip: torch.Tensor, coders: list, sources: bool = True) -> list[CodedFrame]:
    """Code a clip (T B 3 H W) with one coder per frame."""
    memory, coded = None, []
    with torch.no_grad():
        for n, (frame, coder) in enumerate(zip(clip, coders)):
            coded.append(model.code_frame(coder, frame if sources else None, memory,
                                          PLAN.header(n, tuple(frame.shape[-2:]))))
            memory = coded[-1].memory
    return coded


def assert_same_memory(a: Memory, b: Memory) -> None:
    x, y = a.tensors(), b.tensors()
    assert x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x)


@pytest.mark.parametrize("motion, inter", STEPS, ids=lambda name: name)
@pytest.mark.parametrize("size", [(64, 96), (48, 80)], ids=["64x96", "48x80"])
def test_replay_equals_recording(motion, inter, size):
    model = seeded_model(tiny_config(motion, inter))
    clip = seeded_video(8, *size, 1)[:, None]
    recorders = [Recorder() for _ in clip]
    recorded = code(model, clip, recorders)
    replayers = [Replayer(recorder.symbols) for recorder in recorders]
    replayed = code(model, clip, replayers, sources=False)
    for a, b, replayer in zip(recorded, replayed, replayers):
        replayer.finish()
        assert torch.equal(a.frame, b.frame)
        assert_same_memory(a.memory, b.memory)
        assert "flow" not in b.views
    assert ["decoded_flow" not in coded.views for coded in recorded] == [n in (0, 5) for n in range(8)]


def test_replay_at_full_width():
    model = seeded_model(full_config())
    clip = seeded_video(3, 64, 64, 2)[:, None]
    recorders = [Recorder() for _ in clip]
    recorded = code(model, clip, recorders)
    replayed = code(model, clip, [Replayer(recorder.symbols) for recorder in recorders], sources=False)
    for a, b in zip(recorded, replayed):
        assert torch.equal(a.frame, b.frame)
        assert_same_memory(a.memory, b.memory)


@pytest.mark.parametrize("motion, inter", STEPS, ids=lambda name: name)
def test_memory_holds_what_the_configuration_says(motion, inter):
    config = tiny_config(motion, inter)
    model = seeded_model(config)
    clip = seeded_video(2, 32, 48, 3)[:, None]
    intra, predicted = (coded.memory for coded in code(model, clip, [Estimator(), Estimator()]))
    assert list(intra.tensors()) == ["frame"]
    assert (predicted.ref_feature is not None) == (config.inter.buffer.feature is not None)
    assert (predicted.ref_y is not None) == config.inter.buffer.latent
    assert (predicted.ref_mv_feature is not None) == (config.motion.buffer.feature is not None)
    assert (predicted.ref_mv_y is not None) == config.motion.buffer.latent
    if config.motion.buffer.feature is not None:
        assert predicted.ref_mv_feature.shape == (1, config.motion.buffer.feature, 8, 12)
    if config.inter.buffer.feature is not None:
        assert predicted.ref_feature.shape == (1, config.inter.buffer.feature, 32, 48)


@pytest.mark.parametrize("motion, inter", [STEPS[0], STEPS[-1]], ids=lambda name: name)
def test_a_batch_equals_its_samples(motion, inter):
    model = seeded_model(tiny_config(motion, inter))
    clips = [seeded_video(4, 48, 64, salt) for salt in (4, 5, 6)]
    together = [Estimator() for _ in range(4)]
    batch = code(model, torch.stack(clips, 1), together)
    for sample, clip in enumerate(clips):
        alone = [Estimator() for _ in range(4)]
        for a, b, x, y in zip(batch, code(model, clip[:, None], alone), together, alone):
            assert torch.allclose(a.frame[sample], b.frame[0], atol=1e-5)
            assert x.bits.keys() == y.bits.keys()
            for name in x.bits:
                assert x.bits[name][sample].item() == pytest.approx(y.bits[name].item(), rel=1e-4)


def test_a_batch_may_have_a_rate_per_sample():
    model = seeded_model(tiny_config())
    clip = seeded_video(3, 32, 32, 7)[:, None]

    def bits_at(qp: int | torch.Tensor, batch: int) -> list[torch.Tensor]:
        memory, result = None, []
        for n, frame in enumerate(clip):
            header = replace(PLAN.header(n, (32, 32)), qp=qp)
            coder = Estimator()
            with torch.no_grad():
                memory = model.code_frame(coder, frame.expand(batch, -1, -1, -1), memory, header).memory
            result.append(sum(coder.bits.values()))
        return result

    both = bits_at(torch.tensor([3, 60]), 2)
    for n in range(3):
        assert both[n][0].item() == pytest.approx(bits_at(3, 1)[n].item(), rel=1e-4)
        assert both[n][1].item() == pytest.approx(bits_at(60, 1)[n].item(), rel=1e-4)
        assert both[n][0] != both[n][1]


def test_forgetting_the_feature_changes_the_frame_but_keeps_the_latent():
    model = seeded_model(tiny_config())
    clip = seeded_video(3, 32, 48, 8)[:, None]
    memory = code(model, clip[:2], [Estimator(), Estimator()])[-1].memory
    header = PLAN.header(2, (32, 48))
    with torch.no_grad():
        kept = model.code_frame(Estimator(), clip[2], memory, header)
        forgot = model.code_frame(Estimator(), clip[2], memory, replace(header, refresh=True))
        without = model.code_frame(Estimator(), clip[2], replace(memory, ref_feature=None), header)
    assert not torch.equal(kept.frame, forgot.frame)
    assert torch.equal(forgot.frame, without.frame)


def test_decoded_frames_are_clamped_in_evaluation_only():
    model = seeded_model(tiny_config())
    with torch.no_grad():
        model.inter.mc_generator.adaptor.bias += 5
    clip = seeded_video(2, 32, 32, 9)[:, None]
    assert code(model, clip, [Estimator(), Estimator()])[-1].frame.max() <= 1
    assert code(model.train(), clip, [Estimator(), Estimator()])[-1].frame.max() > 1

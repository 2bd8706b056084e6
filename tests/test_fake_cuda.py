"""The code that only runs with a GPU, on a machine without one (fake_cuda.py says how): every tensor where it belongs,
no copy read before it is there, results of the CPU to the bit, and no wait of the host that is not listed here."""
import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from fake_cuda import DEVICE, Device, FakeCuda, fake_cuda, forget_kept_tensors
from stream_helpers import clip, decode, encode_parts, exact_model
from test_training_runs import assert_same
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm
from training_helpers import curve, phase_file, seeded_network, write_clips

from benchmarks.graphs import FrameGraphs, Symbols
from conftest import write_frames
from dataloader.clips import Sample
from dataloader.sampling import MicroBatch
from helpers import TINY, tiny_codec_model, tiny_config
from models.catalogue import CODECS, build_codec, find_model
from models.codec import FrameHeader, VideoCodec
from models.entropy.coder import Estimator
from models.entropy.distributions import Factorized
from models.entropy.transfer import Download
from models.layers import narrow
from seeded import seeded_video
from toy_codec import toy_options
from util.arithmetic import Arithmetic
from util.coding.codec import Codec
from util.coding.gop import CodingPlan
from util.evaluation.evaluate import evaluate
from util.evaluation.metrics import psnr
from util.training.checkpoints import Checkpoints, Progress
from util.training.clip_loss import ClipLoss
from util.training.distributed import Team
from util.training.losses import Distortion, LossExpression
from util.training.main import train
from util.training.network import TrainedNetwork
from util.training.options import TrainingOptions
from util.training.phases import Phase
from util.training.steps import OptimizerSteps
from util.training.trainer import Setup, Trainer

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a real GPU is here: pytest -m gpu")

CPU = torch.device("cpu")
PLAN = CodingPlan(qp=42, intra_qp=42, gop=3)
ONCE = {("download", "models/entropy/distributions.py:identity"),
        *(("upload", where) for where in (
            "util/coding/checksum.py:_powers", "models/spatial_prior.py:passes", "models/entropy/tables.py:index",
            "models/layers/windows.py:_apart", "models/layers/windows.py:_relative_positions"))}
"""What is made for a session, or for all frames of a size, and kept."""
PER_DECODED_FRAME = ("download", "util/coding/session.py:_checksum_of")
PER_DECODED_LATENT = ("download", "models/entropy/stream.py:code")
"""A decoder cannot go on before it has read a symbol."""


@pytest.fixture(autouse=True)
def one_pixel_at_a_time(monkeypatch):
    """On both devices: only CPUs compute several, and the last bits of that differ at these tiny sizes."""
    monkeypatch.setattr(narrow, "LANES", {"no CPU": 16})



@pytest.fixture(autouse=True)
def _one_kernel_of_attention():
    """To the bit the results of a CPU are those of the same kernels."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


@contextmanager
def emulated(deterministic: bool = True) -> Iterator[Device]:
    """The fake device, and PyTorch's settings as they were.

    Args:
        deterministic: as when coding. On CUDA, PyTorch then enlarges pictures by other operations than on a CPU.
    """
    before = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    if not deterministic:
        torch.set_deterministic_debug_mode("default")
    with fake_cuda() as found:
        yield found
    torch.set_deterministic_debug_mode(before[0])
    torch.backends.cudnn.benchmark = before[1]


@pytest.fixture
def device():
    with emulated() as found:
        yield found


@pytest.fixture
def fresh():
    """Nothing that functions keep comes from elsewhere, or goes there."""
    forget_kept_tensors()
    yield
    forget_kept_tensors()


def again_and_again(waits: Counter) -> Counter:
    """Without what happens once."""
    return Counter({wait: count for wait, count in waits.items() if wait not in ONCE})


def model_of(name: str) -> VideoCodec:
    return exact_model() if name == "hytip" else tiny_codec_model(name)


def test_the_fake_device_does_what_a_real_one_does(device):
    here, there = torch.arange(4.0), torch.arange(4.0).to(DEVICE)
    assert there.is_cuda and there.device == DEVICE and (there + 1).cpu().tolist() == [1, 2, 3, 4]
    for mixed in (lambda: here + there, lambda: torch.cat((there, here)),
                  lambda: there.index_select(0, torch.tensor([1]))):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()
    assert (there * torch.tensor(2.0))[3].item() == 6, "scalars of the host are welcome"
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
    download = Download()
    early = download.start(there)
    assert not torch.equal(early, here)
    download.wait()
    assert torch.equal(early, here)
    waits = Counter(dict.fromkeys(("upload", "download", "value", "shape"), 0))
    for (what, _), count in device.waits.items():
        waits[what] += count
    assert waits == {"upload": 1, "download": 1, "value": 1, "shape": 0}
    there[there > 1]
    assert any(what == "shape" for what, _ in device.waits)


@pytest.mark.parametrize("name, precision", [*((name, "float32") for name in sorted(CODECS)), ("hytip", "float64"),
                                             ("hytip", "bfloat16")])
def test_coding(name, precision):
    """Encoding beside the host's work, and decoding: packets of the CPU, bit for bit. Nothing lets the encoder wait."""
    frames, portable, model = clip(2, 20, 24), precision == "float64", model_of(name)
    dtype = torch.float32 if portable else getattr(torch, precision)
    expected = encode_parts(Codec(copy.deepcopy(model), Arithmetic(CPU, dtype)), frames, PLAN, portable=portable)
    latents = [latent for intra in (True, False) for latent in model.latents(intra)
               if not isinstance(latent.distribution, Factorized)]
    passes = sum(len(latent.passes(latent.shape((64, 64))[1:], CPU)) if latent.passes else 1 for latent in latents)
    with emulated() as device:
        codec = Codec(model, Arithmetic(DEVICE, dtype))
        codec.network("float64" if portable else precision)
        assert codec.behind == 1
        device.waits.clear()
        parts = encode_parts(codec, frames, PLAN, portable=portable)
        assert again_and_again(device.waits) == {}
        assert [part.data for part in parts[1:]] == [part.data for part in expected[1:]]
        device.waits.clear()
        decoded = decode(codec, b"".join(part.data for part in parts))
        assert all(frame.matches and isinstance(frame.frame, FakeCuda) for frame in decoded)
        assert again_and_again(device.waits) == {PER_DECODED_FRAME: 2, PER_DECODED_LATENT: passes}
        assert [frame.pixels.tolist() for frame in decoded] == [
            (part.frame[0] * 255).round().byte().tolist() for part in expected[1:-1]]


@pytest.mark.parametrize("name", sorted(CODECS))
def test_evaluation(name):
    def rows(where: torch.device):
        arithmetic = Arithmetic(where)
        found = evaluate(arithmetic.place(models[where]), arithmetic, clip(2, 20, 24), [PLAN], [psnr], align)
        return [row for frame in found for point in frame for row in point]
    models = {where: model_of(name) for where in (CPU, DEVICE)}
    align = models[CPU].grid.align
    expected = rows(CPU)
    with emulated(deterministic=False):
        assert rows(DEVICE) == expected


STAGES = {"flow": ("flow_roughness", "flow_distortion"), "intra": ("i_rate", "distortion"),
          "fullgop": ("rate", "distortion"), "2Pframes": ("m_rate", "warped_distortion"),
          "trainmc": ("None", "1_0.5_0.25_0.125/4")}


def phase_of(stage: str) -> Phase:
    rate, distortion = map(LossExpression, STAGES[stage])
    return Phase(name=stage, first_epoch=1, last_epoch=1, stage=stage, mode="motion" if stage == "2Pframes" else None,
                 rnn=1 if stage == "fullgop" else None, max_p_frames=1, batch_size=1, lr=1e-3, rate=rate,
                 distortion=distortion, clip_norm=1.0 if stage in ("flow", "intra") else None)


def network_of(name: str) -> TrainedNetwork:
    if name == "explicit":
        return seeded_network(tiny_config("Motion_Explicit", "Inter_CRC_Explicit"))
    return TrainedNetwork(tiny_codec_model(name).train().requires_grad_(True))


@pytest.mark.parametrize("name, stage", [*((name, "fullgop") for name in sorted(CODECS)), ("hytip", "flow"),
                                         ("hytip", "intra"), ("explicit", "2Pframes"), ("explicit", "trainmc")])
def test_training_steps(name, stage):
    """Of the trainer: the weights of the CPU, bit for bit, although the host is a step behind. From the loader's batch
    to the report of a step nothing makes the host wait."""
    phase, networks, steps = phase_of(stage), [network_of(name) for _ in range(2)], 1 + (name == "hytip")
    before = {key: value.clone() for key, value in networks[0].entries()}
    frames = (seeded_video(phase.p_frames + 1, 64, 64, 21)[None] * 255).round().byte()

    def train_on(device: str, network: TrainedNetwork, sample: Sample) -> dict:
        trainer = Trainer(Setup(TrainingOptions(crop_size=64, ema=0.9), network, (phase,), {},
                                Checkpoints(Path("nowhere"), "none"), None, 3, Progress()), Team(device))
        trainer.begin(phase)
        bar = tqdm(disable=True)
        for _ in range(steps):
            trainer.update(trainer.accumulate(MicroBatch(0, (), real=True, last=True), sample, 1, None), bar)
        assert trainer.progress.step == steps - (device == "cuda")
        trainer._account(trainer.steps.drain(), bar)
        assert trainer.progress.step == steps and trainer.progress.skipped == 0
        return trainer.progress.sums

    sample = Sample(frames, torch.tensor([40]), torch.tensor([7]), ())
    sums = train_on("cpu", networks[0], sample)
    with emulated(deterministic=False) as device:
        assert train_on("cuda", networks[1], Sample(*(x.pin_memory() for x in sample[:3]), ())) == sums
        found = {key: value.cpu() for key, value in networks[1].entries()}
    expected = dict(networks[0].entries())
    assert_same(found, expected)
    assert any(not torch.equal(value, before[key]) for key, value in expected.items())
    assert {where for where in again_and_again(device.waits) if in_a_step(*where[1].partition(":")[::2])} == set()


def in_a_step(file: str, function: str) -> bool:
    """Whether it is part of a step; what begins a phase, and the test, is not."""
    return file.startswith("models/") or (file, function) in STEP or file in STEP_FILES


STEP_FILES = {f"util/training/{name}.py" for name in ("steps", "stages", "losses")}
STEP = {(f"util/training/{file}.py", function) for file, function in (
    ("trainer", "accumulate"), ("trainer", "update"), ("clip_loss", "forward"), ("averaging", "update"))}


def test_ms_ssim(device):
    """Its window is on the device after the first call; the package would send it there six times in each."""
    pairs = seeded_video(2, 176, 176, 3)[:, None]
    expected, found = (Distortion(ssim=True)(*pairs.to(where)) for where in (CPU, DEVICE))
    device.waits.clear()
    again = Distortion(ssim=True)(*pairs.to(DEVICE))
    assert torch.equal(again.cpu(), expected) and torch.equal(found.cpu(), expected)
    assert {where for _, where in device.waits} <= {"elsewhere"}, "what the test itself does"


def test_a_training_run(tmp_path, toy):
    """Loader, validation, average, saving and resuming: the checkpoint of the CPU, bit for bit."""
    write_clips(tmp_path / "clips", count=2, frames=2, side=32)
    write_frames(tmp_path / "valid" / "a", seeded_video(2, 32, 32, 5))
    phases = {"p": {"end_epoch": 2, "stage": "1Pframe", "batch_size": 1, "loss_on": {"R": "rate", "D": "distortion"}}}
    on_cpu = toy_options(tmp_path, train_data=tmp_path / "clips", valid_data=tmp_path / "valid", gop=2, ema=0.9,
                         train_conf=phase_file(tmp_path / "p.yml", phases), num_workers=0, results=tmp_path / "cpu")
    train(on_cpu)
    on_gpu = replace(on_cpu, device="cuda", results=tmp_path / "gpu")
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    with fake_cuda() as device:
        train(replace(on_gpu, end_epoch=1))
        device.waits.clear()
        train(replace(on_gpu, restore="resume"))
        waits = {where for _, where in device.waits}
    torch.use_deterministic_algorithms(before[0])
    torch.backends.cudnn.benchmark = before[1]
    expected, found = (torch.load(run.results / "HyTIP/checkpoints/epoch=2.pth.tar", weights_only=False)
                       for run in (on_cpu, on_gpu))
    assert_same(found["state_dict"], expected["state_dict"])
    assert_same(found["training"]["average"], expected["training"]["average"])
    assert [row | {"gpu_memory": ""} for row in curve(on_gpu.results)] == curve(on_cpu.results)
    assert {row["gpu_memory"] for row in curve(on_gpu.results)} == {"2.0"}
    assert waits.isdisjoint({f"util/training/trainer.py:{step}" for step in ("accumulate", "update", "_account")})


def test_a_graph_of_each_kind_of_frame():
    """Captured once and replayed with other frames, memories and rates: results of the CPU, and nothing that a capture
    forbids. Kinds: I; the P after it, of type 1; later ones of types 0 and 2."""
    frames = [frame.contiguous(memory_format=torch.channels_last) for frame in seeded_video(8, 32, 48, 1)[:, None]]
    headers = [replace(CodingPlan(qp=20 + n, intra_qp=60 - n, gop=4).header(n, (32, 48)), refresh=False)
               for n in range(8)]
    own, model, memory, expected = Arithmetic(CPU).place(exact_model()), exact_model(), None, []
    with torch.inference_mode():
        for frame, header in zip(frames, headers):
            coder = Symbols()
            coded = own.code_frame(coder, frame, memory, header)
            memory = coded.memory
            expected.append((coded.frame, coder.kept))
    with emulated(deterministic=False):
        graphs, memory = FrameGraphs(Arithmetic(DEVICE).place(model)), None
        for n, (frame, header) in enumerate(zip(frames, headers)):
            with torch.inference_mode():
                found = graphs.code(frame.to(DEVICE), memory, header)
            memory = found.memory
            assert torch.equal(found.frame.cpu(), expected[n][0]), n
            assert all(torch.equal(a.cpu(), b) for a, b in zip(found.symbols, expected[n][1], strict=True))
        assert len(graphs) == 4 and graphs.seconds > 0
        with torch.cuda.graph(torch.cuda.CUDAGraph()), pytest.raises(RuntimeError, match="capturing: value"):
            found.frame.amax().item()


def on_fake_cuda(module: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """With parameters and buffers without values: `Module.to` cannot exchange them."""
    for part in module.modules():
        for key, value in part._parameters.items():
            if value is not None:
                part._parameters[key] = nn.Parameter(mode.from_tensor(value.detach()).to("cuda"))
        for key, value in part._buffers.items():
            if value is not None:
                part._buffers[key] = mode.from_tensor(value).to("cuda")
    return module


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "hytip"))
                                  for name in sorted(CODECS)])
def test_under_the_fake_tensors_of_pytorch(name, monkeypatch, fresh):
    """Another judge, without values, that knows the rules of all of PyTorch's operations for devices: a P-frame as in
    evaluation, the loss of a clip with its I-frame, a step of the optimizer. (Backward needs a driver.)"""
    monkeypatch.setattr(torch.cuda, "Event", mock.MagicMock())
    codec = build_codec(find_model(TINY / f"{name}.yml"))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        codec, frame, coder = on_fake_cuda(codec, mode).eval(), torch.zeros(1, 3, 64, 64, device="cuda"), Estimator()
        with torch.no_grad():
            coded = codec.code_frame(coder, frame, codec.remember_frame(frame), FrameHeader(False, 40, (64, 64)))
        assert {x.device.type for x in (coded.frame, *coder.bits.values())} == {"cuda"}
        phase, network = phase_of("fullgop"), TrainedNetwork(codec.train())
        chosen = network.select(phase)
        plan = phase.stage_plan(variable_rate=True, through_references=False, frame_types=(0, 0))
        loss, terms = ClipLoss(network, plan, phase.loss(()), anchor=0, quality_level=5)(
            torch.zeros(1, 2, 3, 64, 64, dtype=torch.uint8, device="cuda"), torch.tensor([40], device="cuda"),
            torch.tensor([7], device="cuda"))
        assert loss.device.type == "cuda" and loss.requires_grad
        for parameter in chosen.values():
            parameter.grad = torch.zeros_like(parameter)
        OptimizerSteps(list(chosen.values()), 1e-3, lag=1).take(loss.mean(), torch.stack([*terms.values()]).sum(1))

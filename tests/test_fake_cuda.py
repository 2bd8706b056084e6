"""The code that only runs with a GPU, on a machine without one (fake_cuda.py says how): every tensor where it belongs,
no copy read before it is there, results of the CPU to the bit, and no wait of the host that is not listed here."""
from collections import Counter
from dataclasses import replace

import pytest
import torch
from fake_cuda import DEVICE, FakeCuda, fake_cuda
from stream_helpers import clip, decode, encode_parts, exact_model
from test_training_runs import assert_same
from training_helpers import curve, options, phase_file, write_clips, write_tiny_configs

from benchmarks.graphs import FrameGraphs, Symbols
from conftest import write_frames
from models.entropy.transfer import Download
from seeded import seeded_video
from util.arithmetic import Arithmetic
from util.coding.codec import Codec
from util.coding.gop import CodingPlan
from util.evaluation.evaluate import evaluate
from util.evaluation.metrics import psnr
from util.training.main import train

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a real GPU is here: pytest -m gpu")

PLAN = CodingPlan(qp=42, intra_qp=42, gop=3)
CHECKSUM = {("upload", "util/coding/checksum.py:_powers"): 2}
"""Once in the life of a session."""
PER_DECODED_FRAME = ("download", "util/coding/session.py:_checksum_of")
PER_DECODED_LATENT = ("download", "models/entropy/stream.py:code")
"""A decoder cannot go on before it has read a symbol."""


@pytest.fixture
def device():
    """The fake device, and PyTorch's settings as they were."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    with fake_cuda() as found:
        yield found
    torch.use_deterministic_algorithms(before[0])
    torch.backends.cudnn.benchmark = before[1]


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


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
def test_coding(device, precision):
    """Encoding beside the host's work, and decoding: packets of the CPU, bit for bit. Nothing lets the encoder wait."""
    frames, portable = clip(3, 20, 24), precision == "float64"
    dtype = torch.float32 if portable else getattr(torch, precision)
    expected = encode_parts(Codec(exact_model(), Arithmetic(torch.device("cpu"), dtype)), frames, PLAN,
                            portable=portable)
    codec = Codec(exact_model(), Arithmetic(DEVICE, dtype))
    codec.network("float64" if portable else precision)
    assert codec.behind == 1
    encode_parts(codec, frames, PLAN, portable=portable)           # makes what is kept from frame to frame
    device.waits.clear()
    parts = encode_parts(codec, frames, PLAN, portable=portable)
    assert device.waits == CHECKSUM
    assert [part.data for part in parts[1:]] == [part.data for part in expected[1:]]
    device.waits.clear()
    decoded = decode(codec, b"".join(part.data for part in parts))
    assert all(frame.matches and isinstance(frame.frame, FakeCuda) for frame in decoded)
    assert [frame.pixels.tolist() for frame in decoded] == [
        (part.frame[0] * 255).round().byte().tolist() for part in expected[1:-1]]
    assert device.waits.pop(PER_DECODED_FRAME) == 3
    assert device.waits.pop(PER_DECODED_LATENT) == 3 * 4 + 2, "four passes of three latents, one of two for motion"
    device.waits.pop(("download", "util/coding/session.py:pixels"))
    assert device.waits == CHECKSUM


def test_evaluation(device):
    def rows(where: torch.device):
        arithmetic = Arithmetic(where)
        found = evaluate(arithmetic.place(exact_model()), arithmetic, clip(3, 20, 24), [PLAN], [psnr], 16)
        return [row for frame in found for point in frame for row in point]
    assert rows(DEVICE) == rows(torch.device("cpu"))


@pytest.mark.parametrize("motion, inter", [("Motion", "Inter"), pytest.param(
    "Motion_Explicit", "Inter_CRC_Explicit", marks=pytest.mark.slow)])
def test_a_training_run(tmp_path, motion, inter):
    """Phases of all stages, validation, average, saving and resuming: the checkpoints of the CPU, bit for bit, although
    the host is a step behind. Between the loader and the report of a step nothing makes the host wait."""
    configs = write_tiny_configs(tmp_path / "configs")
    write_clips(tmp_path / "clips", count=3)
    write_frames(tmp_path / "valid" / "a", seeded_video(2, 64, 64, 5))
    loss, variable = {"R": "rate", "D": "distortion"}, motion == "Motion"
    phases = {"flow": {"end_epoch": 1, "stage": "flow", "loss_on": {"R": "flow_roughness", "D": "flow_distortion"},
                       "validate": False, "clip_norm": 1.0},
              "intra": {"end_epoch": 2, "stage": "intra", "loss_on": {"R": "i_rate", "D": "distortion"},
                        "validate": False},
              "gop": {"end_epoch": 4, "stage": "fullgop", "RNN": 1, "max_num_Pframe": 2, "loss_on": loss}}
    if not variable:
        phases = {"motion": {"end_epoch": 1, "stage": "2Pframes", "mode": "motion", "frozen_modules": ["Residual"],
                             "loss_on": {"R": "m_rate", "D": "warped_distortion"}, "validate": False},
                  "mc": {"end_epoch": 2, "stage": "trainmc", "max_num_Pframe": 1,
                         "loss_on": {"R": "None", "D": "1_0.5_0.25_0.125/4"}, "validate": False}}
    on_cpu = options(tmp_path, configs, train_data=tmp_path / "clips", valid_data=tmp_path / "valid", gop=2, ema=0.9,
                     train_conf=phase_file(tmp_path / "p.yml", phases), num_workers=0, results=tmp_path / "cpu",
                     cond_motion_coder_conf=configs / f"{motion}.yml", residual_coder_conf=configs / f"{inter}.yml")
    train(on_cpu)
    on_gpu = replace(on_cpu, device="cuda", results=tmp_path / "gpu")
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    with fake_cuda() as device:
        train(replace(on_gpu, end_epoch=1))
        device.waits.clear()
        train(replace(on_gpu, restore="resume"))
        waits = dict(device.waits)
    torch.use_deterministic_algorithms(before[0])
    torch.backends.cudnn.benchmark = before[1]
    last = f"HyTIP/checkpoints/epoch={4 if variable else 2}.pth.tar"
    expected, found = (torch.load(run.results / last, weights_only=False) for run in (on_cpu, on_gpu))
    assert_same(found["state_dict"], expected["state_dict"])
    assert_same(found["training"]["average"], expected["training"]["average"])
    assert [row | {"gpu_memory": ""} for row in curve(on_gpu.results)] == curve(on_cpu.results)
    assert {row["gpu_memory"] for row in curve(on_gpu.results)} == {"2.0"}
    assert {wait for wait in waits if in_a_step(*wait[1].split(":"))} == set()


def in_a_step(file: str, function: str) -> bool:
    """Whether a training step runs this; not what is made once for a size, validates, saves or begins a phase."""
    return ((file.startswith("models/") and function != "passes") or (file, function) in STEP or file in STEP_FILES)


STEP_FILES = {f"util/training/{name}.py" for name in ("steps", "stages", "losses")}
STEP = {(f"util/training/{file}.py", function) for file, function in (
    ("trainer", "accumulate"), ("trainer", "update"), ("clip_loss", "forward"), ("averaging", "update"))}


def test_a_graph_of_each_kind_of_frame(device):
    """Captured once and replayed with other frames, memories and rates: results of the CPU, and nothing that a capture
    forbids. Kinds: I; the P after it, of type 1; later ones of types 0 and 2."""
    frames = seeded_video(9, 32, 48, 1)[:, None]
    models = [Arithmetic(where).place(exact_model()) for where in (torch.device("cpu"), DEVICE)]
    graphs, here, there = FrameGraphs(models[1]), None, None
    for n, frame in enumerate(frames):
        header = replace(CodingPlan(qp=20 + n, intra_qp=60 - n, gop=5).header(n, (32, 48)), refresh=False)
        coder = Symbols()
        with torch.inference_mode():
            expected = models[0].code_frame(coder, frame.contiguous(memory_format=torch.channels_last), here, header)
            found = graphs.code(frame.to(DEVICE, memory_format=torch.channels_last), there, header)
        here, there = expected.memory, found.memory
        assert torch.equal(found.frame.cpu(), expected.frame), n
        assert all(torch.equal(a.cpu(), b) for a, b in zip(found.symbols, coder.kept, strict=True))
    assert len(graphs) == 4 and graphs.seconds > 0
    with torch.cuda.graph(torch.cuda.CUDAGraph()), pytest.raises(RuntimeError, match="capturing: value"):
        found.frame.amax().item()

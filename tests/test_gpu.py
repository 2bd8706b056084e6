"""What only a GPU can show: ./install.sh test -m gpu. Skipped without one."""
import io
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from stream_helpers import clip, encode_parts, exact_model
from test_training_runs import Killed, assert_same, dies_at, whole
from training_helpers import curve, free_port, options, phase_file, write_clips, write_tiny_configs

from helpers import ROOT, STEPS, seeded_model, tiny_config
from models.codec import FrameHeader
from models.entropy.coder import Recorder, Replayer
from seeded import seeded_video
from util.arithmetic import Arithmetic, choose_arithmetic
from util.coding.codec import Codec
from util.coding.gop import CodingPlan
from util.training import checkpoints
from util.training.main import train

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
PLAN = CodingPlan(qp=42, intra_qp=42, gop=4)


@pytest.fixture(autouse=True)
def _arithmetic_of_coding():
    """Whatever training sets; and that of the other tests afterwards."""
    choose_arithmetic("cuda", threads=1)
    yield
    choose_arithmetic("cpu", threads=1)


@pytest.mark.parametrize("motion, inter", STEPS)
def test_the_networks_compute_what_they_do_on_a_cpu(motion, inter):
    """With the symbols of the CPU, so that a rounding does not turn one: frames, flows and latents within 1e-4."""
    config = tiny_config(motion, inter)
    models = {device: Arithmetic(device).place(seeded_model(config)) for device in (CPU, GPU)}
    qp, memories = 40 if config.variable_rate else 3, dict.fromkeys(models)
    with torch.inference_mode():
        for n, frame in enumerate(seeded_video(4, 64, 80, 1)[:, None]):
            header = FrameHeader(intra=n == 0, qp=qp, size=(64, 80), frame_type=n % 3 if config.variable_rate else 0)
            recorder = Recorder()
            here = models[CPU].code_frame(recorder, frame, memories[CPU], header)
            symbols = [(name, values.to(GPU)) for name, values in recorder.symbols]
            there = models[GPU].code_frame(Replayer(symbols), None, memories[GPU], header)
            memories = {CPU: here.memory, GPU: there.memory}
            torch.testing.assert_close(there.frame.cpu(), here.frame, rtol=0, atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_streams_of_the_gpu(precision):
    """What was encoded beside the host's work decodes to the same bits, twice alike, and alike without overlap."""
    frames, codec = clip(6, 40, 56), Codec(exact_model(), Arithmetic(GPU, getattr(torch, precision)))
    parts = encode_parts(codec, frames, PLAN)
    data = b"".join(part.data for part in parts)
    decoded = list(codec.decode(io.BytesIO(data)))
    assert len(decoded) == 6 and all(frame.matches for frame in decoded)
    for frame, part in zip(decoded, parts[1:]):
        assert torch.equal(frame.frame, part.frame)
    codec.behind = 0
    assert b"".join(part.data for part in encode_parts(codec, frames, PLAN)) == data


def test_portable_streams_pass_both_ways():
    codecs = [Codec(exact_model(), Arithmetic(device)) for device in (CPU, GPU)]
    for writer, reader in (codecs, codecs[::-1]):
        data = b"".join(writer.compress(clip(5, 40, 56), PLAN, portable=True))
        assert len(list(reader.decode(io.BytesIO(data)))) == 5


@pytest.fixture(scope="module")
def run_options(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_clips(folder / "clips", count=5, side=80)
    loss = {"R": "rate", "D": "distortion"}
    phases = {"first": {"end_epoch": 1, "stage": "2Pframes", "mode": "residual", "loss_on": loss},
              "second": {"end_epoch": 2, "stage": "fullgop", "RNN": 1, "max_num_Pframe": 2, "loss_on": loss}}
    return options(folder, write_tiny_configs(folder / "configs"), train_data=folder / "clips", tf32="off",
                   train_conf=phase_file(folder / "p.yml", phases), num_workers=2, device="cuda", ema=0.9)


def test_a_training_run_follows_that_of_a_cpu(run_options):
    train(replace(run_options, experiment_name="gpu"))
    train(replace(run_options, experiment_name="cpu", device="cpu", num_workers=0))
    for there, here in zip(curve(run_options.results, "gpu"), curve(run_options.results, "cpu")):
        assert float(there["loss"]) == pytest.approx(float(here["loss"]), rel=0.02)
        assert float(there["gpu_memory"]) > 0 and there["skipped"] == "0"


def test_training_in_bfloat16_learns(run_options):
    train(replace(run_options, experiment_name="amp", amp="bfloat16"))
    for half, exact in zip(curve(run_options.results, "amp"), curve(run_options.results, "gpu")):
        assert float(half["loss"]) == pytest.approx(float(exact["loss"]), rel=0.1)


def test_a_killed_run_resumes_at_its_step(run_options, monkeypatch):
    """Every sample comes once. Not the same bits: the gradient of warping has no deterministic form on a GPU."""
    run = replace(run_options, experiment_name="killed", save_minutes=0)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        dies_at(patch, checkpoints.Checkpoints, "save", 2, True)
        train(run)
    train(replace(run, restore="resume"))
    for resumed, expected in zip(curve(run.results, "killed"), curve(run.results, "gpu")):
        assert resumed["samples"] == expected["samples"]
        assert float(resumed["loss"]) == pytest.approx(float(expected["loss"]), rel=0.02)


def test_a_resumed_run_has_the_state_that_was_saved(run_options):
    """Weights, average, Adam and progress: what is read and written again without a step is the same to the bit."""
    last = run_options.results / "gpu" / "checkpoints" / "epoch=2.pth.tar"
    before = whole(last)
    train(replace(run_options, experiment_name="again", restore="resume", restore_exp_key="gpu", end_epoch=2))
    for one, other in zip(whole(last), before):
        assert_same(one, other)


def test_nccl_on_one_device(run_options):
    """A process group of one GPU: collectives and shared gradients, with the results of a run without."""
    script = ("import sys; sys.path[:0] = [sys.argv[1], sys.argv[1] + '/tests']\n"
              "import torch, torch.distributed as dist\n"
              "from torch.nn.parallel import DistributedDataParallel as Shared\n"
              "dist.init_process_group('nccl'); x = torch.ones(3, device='cuda'); dist.all_reduce(x)\n"
              "module = Shared(torch.nn.Linear(3, 3).cuda(), device_ids=[0], static_graph=True,\n"
              "                gradient_as_bucket_view=True)\n"
              "module(x[None]).sum().backward(); assert module.module.weight.grad.eq(1).all()\n"
              "dist.broadcast_object_list(['x'], src=0); dist.destroy_process_group(); print('shared')\n")
    environment = {**os.environ, "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(free_port())}
    done = subprocess.run([sys.executable, "-c", script, str(ROOT)], env=environment, capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 0 and "shared" in done.stdout, done.stderr

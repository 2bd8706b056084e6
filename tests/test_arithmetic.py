"""The one choice of arithmetic: it holds whatever was set before, and its description tells what is set."""
import pytest
import torch

from util.arithmetic import choose_arithmetic
from util.errors import InputError


@pytest.fixture(autouse=True)
def _restore():
    yield
    choose_arithmetic("cpu", threads=1)


def test_choosing_undoes_inexact_and_unrepeatable_settings():
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = True
    arithmetic = choose_arithmetic("cpu", threads=2)
    assert arithmetic.describe() == {"device": "cpu", "device_name": "cpu", "dtype": "float32", "threads": 2,
                                     "tf32": False, "autotuning": False, "deterministic_algorithms": True}


@pytest.mark.parametrize("setting, key, value", [
    (lambda: torch.use_deterministic_algorithms(False), "deterministic_algorithms", False),
    (lambda: setattr(torch.backends.cudnn, "benchmark", True), "autotuning", True),
    (lambda: setattr(torch.backends.cudnn, "allow_tf32", True), "tf32", True)])
def test_the_description_reads_the_settings(setting, key, value):
    arithmetic = choose_arithmetic("cpu")
    setting()
    assert arithmetic.describe()[key] is value


def test_what_cannot_be_had_is_refused():
    with pytest.raises(InputError, match="--threads 0"):
        choose_arithmetic("cpu", threads=0)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no CUDA device"):
            choose_arithmetic("cuda")
        assert choose_arithmetic("auto").device.type == "cpu"


def test_frames_keep_every_8_bit_value():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).expand(3, -1, -1)
    frame = choose_arithmetic("cpu").frame(pixels)
    assert frame.shape == (1, 3, 16, 16) and torch.equal((frame[0] * 255).round().byte(), pixels)

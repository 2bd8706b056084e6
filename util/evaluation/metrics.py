"""Quality of decoded frames: per frame, in RGB, on unrounded floats in [0, 1] (docs/fidelity.md)."""
import math
from collections.abc import Callable

from pytorch_msssim import ms_ssim as _ms_ssim
from torch import Tensor

from util.errors import InputError

MS_SSIM_SIDE = 160
"""Both sides must exceed this for the five scales of an 11-tap window."""

Metric = Callable[[Tensor, Tensor], float]


def psnr(decoded: Tensor, original: Tensor) -> float:
    """PSNR in dB of one frame, 1 3 H W; infinite for identical frames."""
    return psnr_of_error(mean_squared_error(decoded, original).item())


def mean_squared_error(decoded: Tensor, original: Tensor) -> Tensor:
    """Over one frame; a scalar where the frames are, for which no device has to be waited for."""
    return (decoded - original).square().mean()


def psnr_of_error(mse: float) -> float:
    """PSNR in dB of a mean squared error of values in [0, 1]; infinite for 0."""
    return 10 * math.log10(1 / mse) if mse > 0 else math.inf


def ms_ssim(decoded: Tensor, original: Tensor) -> float:
    """MS-SSIM of one frame, 1 3 H W, both sides above 160 (Wang et al., 2003; package pytorch-msssim)."""
    return _ms_ssim(decoded, original, data_range=1).item()


METRICS: dict[str, Metric] = {"PSNR": psnr, "MS-SSIM": ms_ssim}


def check_size(metric: str, name: str, height: int, width: int) -> None:
    """Refuse frames too small for the metric.

    Raises:
        InputError: MS-SSIM with a side of 160 or less.
    """
    if metric == "MS-SSIM" and min(height, width) <= MS_SSIM_SIDE:
        raise InputError(f"--ssim: {name} is {width}x{height}, but MS-SSIM needs both sides above {MS_SSIM_SIDE}; "
                         "use larger frames or PSNR")

"""YUV PSNR with weights 6:1:1, as DCVC-FM and DCVC-RT report it, beside the RGB metrics of metrics.py."""
from torch import Tensor

from util.color import Color, psnr_yuv
from util.evaluation.metrics import METRICS, Metric


def yuv_metric(matrix: str) -> Metric:
    """A metric of (decoded, original), both 1 3 H W RGB in [0, 1]: (6 Y + U + V) / 8 of their PSNRs in dB.

    Chroma is not subsampled and nothing is rounded. `matrix`: "BT601" or "BT709".
    """
    color = Color(matrix, "limited")

    def metric(decoded: Tensor, original: Tensor) -> float:
        return psnr_yuv(original[0].cpu().numpy(), decoded[0].cpu().numpy(), color)[3]

    return metric


def metric_of(name: str, matrix: str) -> Metric:
    """The metric of a name; `matrix` ("BT601" or "BT709") matters for PSNR-YUV alone."""
    return METRICS[name] if name in METRICS else yuv_metric(matrix)

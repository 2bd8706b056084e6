"""Convolutions to few channels on CPUs, several pixels of a row at a time.

PyTorch's kernels have one output channel per lane of a vector register, so that 8 outputs leave half of an AVX-512
register idle and 2 outputs seven eighths. `use_packed_rows` changes the class of such convolutions, so names and
weights stay: with a stride of several pixels, the outputs of all of them are the channels of one convolution, and what
it returns in channels-last is the result in memory already. Each output is the same sum, beside zeros. Shapes: B C H W.

In half precision only kernels of 3x3 are packed: with larger ones that stride, oneDNN of PyTorch 2.14 computes wrongly
in bfloat16 on CPUs with AMX (7x7 from 8 channels: errors as large as the results, where 3x3 and plain ones are right).
"""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LANES = {"AVX512": 16, "AVX2": 8}
"""float32 values per vector register."""


class PackedConv2d(nn.Conv2d):
    """Conv2d that fills vector registers, where no gradients are recorded and x is in channels-last on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        pixels = self._pixels(x)
        if pixels == 1:
            return super().forward(x)
        # For each pixel the kernel, moved as far as the pixel, in a kernel wide enough for all of them.
        weight = torch.cat([F.pad(self.weight, (n, pixels - 1 - n)) for n in range(pixels)])
        bias = None if self.bias is None else self.bias.repeat(pixels)
        packed = F.conv2d(x, weight, bias, (1, pixels), self.padding)
        return packed.permute(0, 2, 3, 1).reshape(len(x), *x.shape[2:], self.out_channels).permute(0, 3, 1, 2)

    def _pixels(self, x: Tensor) -> int:
        """As many as fit a register, a power of two that divides the width; 1 where there is nothing to gain."""
        if (x.device.type != "cpu" or x.dtype == torch.float64 or torch.is_grad_enabled()
                or (x.dtype != torch.float32 and max(self.kernel_size) > 3)
                or not x.is_contiguous(memory_format=torch.channels_last)):
            return 1
        pixels = LANES.get(torch.backends.cpu.get_cpu_capability(), 0) // self.out_channels
        return next((n for n in (8, 4, 2) if n <= pixels and x.shape[3] % n == 0), 1)


def use_packed_rows(model: nn.Module) -> None:
    """Let every plain convolution of the model to few channels, same size out as in, do so."""
    for module in model.modules():
        if (type(module) is nn.Conv2d and module.out_channels <= max(LANES.values()) // 2 and module.groups == 1
                and module.kernel_size[0] > 1 and module.stride == module.dilation == (1, 1)
                and module.padding_mode == "zeros"
                and module.padding == tuple(side // 2 for side in module.kernel_size)
                and all(side % 2 for side in module.kernel_size)):
            module.__class__ = PackedConv2d

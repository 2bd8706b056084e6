"""Frames coded by replaying CUDA graphs: a graph per kind of frame, captured when the first one comes.

A graph repeats kernels on fixed memory, so within a frame the host may decide nothing and wait for nothing. What
decides which kernels run makes the kind: I- or P-frame, frame type, refresh, and what the memory holds. The rate does
not: it is a tensor. Whether graphs pay is for `--gpu-day` to say; the command line does not use them.
"""
import time
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from models.codec import FrameHeader, Memory, VideoCodec

WARM_UP = 3
"""Runs before the capture: kernels are chosen, and tensors made that are kept from frame to frame."""


class Kind(NamedTuple):
    """What frames must have in common to share a graph."""
    intra: bool
    frame_type: int
    refresh: bool
    remembered: tuple[str, ...]


class Symbols:
    """A coder that rounds and keeps, on the device, what an encoder would send to the host."""

    def __init__(self):
        self.kept: list[Tensor] = []

    def code(self, residual, scale, model, name):
        self.kept += [residual.round(), scale]
        return self.kept[-2]

    def code_z(self, z, prior, size, name):
        self.kept.append(z.round())
        return self.kept[-1]


class Outcome(NamedTuple):
    """Of a frame; overwritten by the next frame of the same kind.

    Attributes:
        frame: decoded, 1 3 H W.
        memory: for the next frame.
        symbols: of all latents in coding order, with scales where there are any.
    """
    frame: Tensor
    memory: Memory
    symbols: list[Tensor]


class _Captured(NamedTuple):
    graph: "torch.cuda.CUDAGraph"
    frame: Tensor
    memory: Memory | None
    qp: Tensor
    outcome: Outcome


class FrameGraphs:
    """Codes the frames of a video of one size.

    Args:
        model: placed on a GPU.

    Attributes:
        seconds: that captures took, warm-up included.
    """

    def __init__(self, model: VideoCodec):
        self.seconds = 0.0
        self._model = model
        self._captured: dict[Kind, _Captured] = {}

    def __len__(self) -> int:
        return len(self._captured)

    @torch.inference_mode()
    def code(self, frame: Tensor, memory: Memory | None, header: FrameHeader) -> Outcome:
        """Code one frame. Arguments as in `VideoCodec.code_frame`; one sample, and an int for QP."""
        memory = None if header.intra else memory
        kind = Kind(header.intra, header.frame_type, header.refresh, _remembered(memory))
        if kind not in self._captured:
            started = time.perf_counter()
            self._captured[kind] = self._capture(frame, memory, header)
            self.seconds += time.perf_counter() - started
        captured = self._captured[kind]
        captured.frame.copy_(frame)
        captured.qp.fill_(header.qp)
        for name in kind.remembered:
            getattr(captured.memory, name).copy_(getattr(memory, name))
        captured.graph.replay()
        return captured.outcome

    def _capture(self, frame: Tensor, memory: Memory | None, header: FrameHeader) -> _Captured:
        frame, qp = frame.clone(), torch.full((1,), header.qp, dtype=torch.int64, device=frame.device)
        if memory is not None:
            memory = replace(memory, **{name: getattr(memory, name).clone() for name in _remembered(memory)})
        header = replace(header, qp=qp)

        def run() -> Outcome:
            coder = Symbols()
            coded = self._model.code_frame(coder, frame, memory, header)
            return Outcome(coded.frame, coded.memory, coder.kept)

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outcome = run()
        return _Captured(graph, frame, memory, qp, outcome)


def _remembered(memory: Memory | None) -> tuple[str, ...]:
    """The fields of a memory that hold something."""
    if memory is None:
        return ()
    return tuple(memory.tensors())

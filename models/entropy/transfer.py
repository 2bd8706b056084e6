"""Between device and host, without waiting where nothing has to be waited for."""
import numpy as np
import torch
from torch import Tensor


class Download:
    """Copies to the host that run while the device computes on. On a CPU there is nothing to copy."""

    def __init__(self):
        self._done: torch.cuda.Event | None = None

    def start(self, tensor: Tensor) -> Tensor:
        """What will hold the values on the host after `wait`; the tensor must not be written to until then."""
        if not tensor.is_cuda:
            return tensor.cpu()
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
        if self._done is None:
            self._done = torch.cuda.Event(blocking=True)       # a waiting thread leaves its core to others
        self._done.record(torch.cuda.current_stream(tensor.device))
        return host

    def wait(self) -> None:
        """Until every copy that was started is complete; any thread may ask."""
        if self._done is not None:
            self._done.synchronize()


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on the device. Pageable memory would make the host wait for all work that is queued."""
    if device.type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def upload(values: np.ndarray, like: Tensor) -> Tensor:
    """Integers of the host as numbers in the format and on the device of `like`."""
    return to_device(torch.from_numpy(values), like.device).to(like.dtype)

"""Clips rendered from pictures: textured layers that move over each other, seen by a camera.

Each pixel of each frame is the mean of samples taken straight from the layers' textures, which are finer than the
frames: no picture is resampled twice, so that nothing gets softer from frame to frame. Spread over the pixel's area
the samples prevent aliasing; spread over the time the shutter is open they are motion blur.

Units: pixels of the output, from the frame's centre; x to the right, y down; time in frames. F: frames of a clip.
"""
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Vector = tuple[float, float]
QUARTERS = ((-0.25, -0.25), (0.25, 0.25), (0.25, -0.25), (-0.25, 0.25))
"""Where in a pixel the samples lie."""
BLUR_SAMPLES = 8


@dataclass(frozen=True)
class Motion:
    """How a layer lies in the frame at time t.

    Attributes:
        position: of the layer's origin at t = 0.
        velocity, acceleration: of it, per frame and per frame squared.
        sway, sway_rate, sway_phase: amplitude, radians per frame and phase of a swinging added to the position.
        angle, spin: radians, and radians per frame.
        zoom: growth per frame; the size is exp(zoom t).
        tilt, tilt_rate: perspective: 1 / distance at which the plane vanishes, and its change per frame.
        wave, wave_length, wave_rate: amplitude, length and radians per frame of a rippling of the layer itself.
    """
    position: Vector = (0.0, 0.0)
    velocity: Vector = (0.0, 0.0)
    acceleration: Vector = (0.0, 0.0)
    sway: Vector = (0.0, 0.0)
    sway_rate: float = 0.0
    sway_phase: float = 0.0
    angle: float = 0.0
    spin: float = 0.0
    zoom: float = 0.0
    tilt: Vector = (0.0, 0.0)
    tilt_rate: Vector = (0.0, 0.0)
    wave: float = 0.0
    wave_length: float = 100.0
    wave_rate: float = 0.0

    def origin(self, t: float) -> Vector:
        """Where the layer's origin is in the frame."""
        swing = math.sin(self.sway_rate * t + self.sway_phase) - math.sin(self.sway_phase)
        return tuple(p + v * t + a * t * t / 2 + s * swing
                     for p, v, a, s in zip(self.position, self.velocity, self.acceleration, self.sway))

    def to_layer(self, x: Tensor, y: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """The layer's coordinates under points of the frame, at time t."""
        left, top = self.origin(t)
        x, y = x - left, y - top
        tilt_x, tilt_y = (start + rate * t for start, rate in zip(self.tilt, self.tilt_rate))
        distance = 1 + tilt_x * x + tilt_y * y
        scale = math.exp(-self.zoom * t) / distance
        turn = self.angle + self.spin * t
        cos, sin = math.cos(turn), math.sin(turn)
        x, y = (cos * x + sin * y) * scale, (cos * y - sin * x) * scale
        if self.wave:
            wave_number, phase = 2 * math.pi / self.wave_length, self.wave_rate * t
            x, y = (x + self.wave * torch.sin(wave_number * (y + 0.3 * x) + phase),
                    y + self.wave * torch.sin(wave_number * (0.8 * x - 0.4 * y) + 1.3 * phase))
        return x, y


@dataclass(frozen=True)
class Mask:
    """The outline of a layer around its origin.

    Attributes:
        radii: distance of the outline at equally spaced angles.
        edge: width over which the layer fades.
    """
    radii: tuple[float, ...]
    edge: float

    @property
    def reach(self) -> float:
        """Beyond this distance from the origin the layer is not seen."""
        return max(self.radii) + self.edge

    def opacity(self, x: Tensor, y: Tensor) -> Tensor:
        """In [0, 1], at points of the layer."""
        count = len(self.radii)
        place = torch.remainder(torch.atan2(y, x) / (2 * math.pi), 1.0) * count
        first = place.floor()
        radii = torch.tensor([*self.radii, *self.radii[:2]], dtype=x.dtype)
        outline = torch.lerp(radii[first.long()], radii[first.long() + 1], place - first)
        return ((outline - torch.hypot(x, y)) / self.edge + 0.5).clamp(0, 1)


@dataclass(frozen=True)
class Layer:
    """A textured plane.

    Attributes:
        texture: float32 (3, h, w) in [0, 1].
        density: texture pixels per unit.
        corner: the layer's coordinates of the texture's top left corner.
        mask: None fills the frame; beyond the texture its border goes on.
    """
    texture: Tensor
    density: float
    corner: Vector
    motion: Motion
    mask: Mask | None = None

    def color(self, x: Tensor, y: Tensor) -> Tensor:
        """float32 (3, rows, columns) at points of the layer, bicubic."""
        height, width = self.texture.shape[1:]
        grid = torch.stack([(x - self.corner[0]) * (2 * self.density / width) - 1,
                            (y - self.corner[1]) * (2 * self.density / height) - 1], dim=-1)
        return functional.grid_sample(self.texture[None], grid[None].float(), mode="bicubic", padding_mode="border",
                                      align_corners=False)[0]


@dataclass(frozen=True)
class Scene:
    """A clip to be rendered.

    Attributes:
        layers: from back to front; the first one has no mask.
        frames: number of them.
        height, width: of a frame.
        shutter: part of the time between frames that the shutter is open; 0 gives sharp frames.
        brightening: relative change of brightness per frame.
        noise: standard deviation in levels, independent from frame to frame.
        noise_seed: of it.
    """
    layers: tuple[Layer, ...]
    frames: int
    height: int
    width: int
    shutter: float = 0.0
    brightening: float = 0.0
    noise: float = 0.0
    noise_seed: int = 0


def render(scene: Scene) -> np.ndarray:
    """uint8 (F, H, W, 3)."""
    generator = np.random.default_rng(scene.noise_seed)
    frames = []
    for n in range(scene.frames):
        light = frame_light(scene, n) * (1 + scene.brightening * n)
        levels = light.clamp(0, 1).permute(1, 2, 0).numpy() * 255
        if scene.noise:
            levels = levels + scene.noise * sensor_noise(generator, scene.height, scene.width)
        frames.append(np.clip(np.floor(levels + 0.5), 0, 255).astype(np.uint8))
    return np.stack(frames)


def frame_light(scene: Scene, n: int) -> Tensor:
    """Frame n before noise and rounding: float32 (3, H, W), around [0, 1] (bicubic sampling overshoots)."""
    if scene.shutter:
        moments = [n + scene.shutter * ((i + 0.5) / BLUR_SAMPLES - 0.5) for i in range(BLUR_SAMPLES)]
    else:
        moments = [n] * len(QUARTERS)
    total = torch.zeros(3, scene.height, scene.width)
    for i, t in enumerate(moments):
        total += _sample(scene, t, QUARTERS[i % len(QUARTERS)])
    return total / len(moments)


def _sample(scene: Scene, t: float, offset: Vector) -> Tensor:
    """One sample per pixel: all layers at time t, at an offset from the pixels' centres."""
    columns = torch.arange(scene.width, dtype=torch.float64) + (0.5 + offset[0] - scene.width / 2)
    rows = torch.arange(scene.height, dtype=torch.float64) + (0.5 + offset[1] - scene.height / 2)
    seen = torch.zeros(3, scene.height, scene.width)
    for layer in scene.layers:
        down, across = _window(layer, t, rows, columns)
        y, x = torch.meshgrid(rows[down], columns[across], indexing="ij")
        if not y.numel():
            continue
        x, y = layer.motion.to_layer(x, y, t)
        color = layer.color(x, y)
        if layer.mask is not None:
            color = torch.lerp(seen[:, down, across], color, layer.mask.opacity(x, y).float())
        seen[:, down, across] = color
    return seen


def _window(layer: Layer, t: float, rows: Tensor, columns: Tensor) -> tuple[slice, slice]:
    """The rows and columns that a layer can be seen in (a masked layer has no tilt)."""
    if layer.mask is None:
        return slice(None), slice(None)
    left, top = layer.motion.origin(t)
    reach = (layer.mask.reach + 2 * layer.motion.wave) * math.exp(layer.motion.zoom * t) + 1
    return tuple(slice(*torch.searchsorted(line, torch.tensor([middle - reach, middle + reach],
                                                              dtype=line.dtype)).tolist())
                 for line, middle in ((rows, top), (columns, left)))


def sensor_noise(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    """float32 (H, W, 3) of variance 1; two thirds of it are shared by the three colours, as demosaicing leaves it."""
    shared = generator.standard_normal((height, width, 1), dtype=np.float32)
    own = generator.standard_normal((height, width, 3), dtype=np.float32)
    return math.sqrt(2 / 3) * shared + math.sqrt(1 / 3) * own

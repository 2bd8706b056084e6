"""Random scenes of photographs: what is in a clip and how it moves, drawn from a generator.

The ranges are those of ordinary video at 240 to 1080 rows: much stands still or moves by less than a pixel a frame, few
things by ten. Units as in render.py.
"""
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dataloader.small.render import Layer, Mask, Motion, Scene, Vector

OVERSAMPLING = 2
"""Texture pixels per output pixel, where the photograph is fine enough."""
MARGIN = 4
OUTLINE_POINTS = 128
FLAT = 0.008
"""Mean absolute difference of neighbours, of white, below which a texture shows nothing that moves."""


@dataclass(frozen=True)
class Photo:
    """A photograph to cut textures from.

    Attributes:
        name: for the record.
        pixels: uint8 (h, w, 3); may be a memory map.
        weight: how often it is drawn, relative to others.
    """
    name: str
    pixels: np.ndarray
    weight: float = 1.0

    @property
    def side(self) -> int:
        """The shorter one."""
        return min(self.pixels.shape[:2])


def draw_scene(generator: np.random.Generator, photos: Sequence[Photo], frames: int, height: int, width: int) -> Scene:
    """A scene of 1 to 5 layers, each from another photograph.

    Args:
        photos: those whose shorter side is 1.3 times the frame's longer one or more can be backgrounds; one must be.
    """
    shutter = float(generator.uniform(0.3, 0.8)) if generator.random() < 0.2 else 0.0
    large = [photo for photo in photos if photo.side >= 1.3 * max(height, width)]
    background = _background(generator, _pick(generator, large), frames, height, width)
    layers = [background]
    for _ in range(int(generator.choice(5, p=(0.2, 0.3, 0.25, 0.15, 0.1)))):
        layers.append(_foreground(generator, _pick(generator, photos), background.motion, frames, height, width))
    return Scene(tuple(layers), frames, height, width, shutter,
                 brightening=float(generator.normal(0, 0.01)) if generator.random() < 0.15 else 0.0,
                 noise=float(generator.uniform(0.4, 2.5)) if generator.random() < 0.35 else 0.0,
                 noise_seed=int(generator.integers(2 ** 31)))


def _pick(generator: np.random.Generator, photos: Sequence[Photo]) -> Photo:
    weights = np.array([photo.weight for photo in photos])
    return photos[int(generator.choice(len(photos), p=weights / weights.sum()))]


def draw_velocity(generator: np.random.Generator, still: float, fastest: float = 12.0) -> Vector:
    """Zero with probability `still`, else of logarithmically uniform speed; more often across than up and down."""
    if generator.random() < still:
        return 0.0, 0.0
    speed = math.exp(generator.uniform(math.log(0.05), math.log(fastest)))
    direction = math.atan2(0.6 * generator.normal(), generator.normal())
    return speed * math.cos(direction), speed * math.sin(direction)


def _maybe(generator: np.random.Generator, chance: float, deviation: float) -> float:
    """Normal with that chance, else 0."""
    value = float(generator.normal(0, deviation))
    return value if generator.random() < chance else 0.0


def _background_motion(generator: np.random.Generator, frames: int) -> Motion:
    velocity = draw_velocity(generator, still=0.3)
    if velocity == (0.0, 0.0) and generator.random() < 0.7:
        return Motion()                                            # a camera on a tripod
    sway = generator.random() < 0.25
    perspective = generator.random() < 0.25
    return Motion(velocity=velocity,
                  acceleration=tuple(_maybe(generator, 0.4, 0.06 * (math.hypot(*velocity) + 0.1)) for _ in range(2)),
                  sway=tuple(generator.uniform(0, 1.5, 2)) if sway else (0.0, 0.0),
                  sway_rate=float(generator.uniform(0.3, 2)), sway_phase=float(generator.uniform(0, 6)),
                  angle=float(generator.normal(0, 0.1)), spin=_maybe(generator, 0.35, 0.007),
                  zoom=_maybe(generator, 0.4, 0.008),
                  tilt=tuple(generator.normal(0, 3e-4, 2)) if perspective else (0.0, 0.0),
                  tilt_rate=tuple(generator.normal(0, 2e-5, 2)) if perspective else (0.0, 0.0),
                  **_draw_wave(generator, 0.15))


def _draw_wave(generator: np.random.Generator, chance: float) -> dict[str, float]:
    if generator.random() >= chance:
        return {}
    length = float(generator.uniform(60, 250))
    return {"wave": length * float(generator.uniform(0.005, 0.02)), "wave_length": length,
            "wave_rate": float(generator.normal(0, 0.35))}


def _slower(motion: Motion, factor: float) -> Motion:
    def by(vector: Vector) -> Vector:
        return tuple(factor * value for value in vector)

    return replace(motion, velocity=by(motion.velocity), acceleration=by(motion.acceleration), sway=by(motion.sway),
                   angle=factor * motion.angle, spin=factor * motion.spin, zoom=factor * motion.zoom,
                   tilt=by(motion.tilt), tilt_rate=by(motion.tilt_rate), wave=factor * motion.wave)


def extent(motion: Motion, frames: int, height: int, width: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what the frames see of a layer, in its coordinates."""
    x, y = torch.meshgrid(torch.linspace(-width / 2, width / 2, 9, dtype=torch.float64),
                          torch.linspace(-height / 2, height / 2, 9, dtype=torch.float64), indexing="ij")
    seen = [motion.to_layer(x, y, n / 2) for n in range(-1, 2 * frames)]
    xs, ys = (torch.stack(values) for values in zip(*seen))
    more = 2 * motion.wave                                         # the ripples between the points looked at
    return (xs.min().item() - more, ys.min().item() - more, xs.max().item() + more, ys.max().item() + more)


def _background(generator: np.random.Generator, photo: Photo, frames: int, height: int, width: int) -> Layer:
    coarsest = photo.side / (1.3 * max(height, width))
    motion = _background_motion(generator, frames)
    for _ in range(6):
        density = math.exp(generator.uniform(math.log(min(1.5, coarsest)), math.log(coarsest)))
        rows, columns = (side / density - 2 * MARGIN for side in photo.pixels.shape[:2])
        for _ in range(20):
            left, top, right, bottom = extent(motion, frames, height, width)
            if right - left <= columns and bottom - top <= rows:
                break
            motion = _slower(motion, 0.8)
        texture, fineness, corner = _cut(generator, photo, density, (left, top, right, bottom))
        if detail(texture) >= FLAT or generator.random() < 0.05:
            break
    return Layer(_recolor(generator, texture), fineness, corner, motion)


def _foreground(generator: np.random.Generator, photo: Photo, behind: Motion, frames: int, height: int,
                width: int) -> Layer:
    size = max(height, width) * math.exp(generator.uniform(math.log(0.06), math.log(0.4)))
    mask = draw_mask(generator, size, 0.4 * max(height, width))
    with_scene = generator.random() < 0.5
    parallax = float(generator.uniform(1, 1.8))
    velocity = tuple((parallax * shared if with_scene else 0.0) + own for shared, own in
                     zip(behind.velocity, draw_velocity(generator, still=0.5 if with_scene else 0.15)))
    middle = generator.uniform(-0.5, 0.5, 2) * (width, height)     # in the frame half-way through the clip
    motion = Motion(position=tuple(place - speed * frames / 2 for place, speed in zip(middle, velocity)),
                    velocity=velocity,
                    acceleration=tuple(_maybe(generator, 0.3, 0.05 * (math.hypot(*velocity) + 0.1)) for _ in range(2)),
                    angle=float(generator.uniform(0, 6.3)) if generator.random() < 0.3 else 0.0,
                    spin=_maybe(generator, 0.4, 0.02), zoom=_maybe(generator, 0.3, 0.012),
                    **_draw_wave(generator, 0.2))
    reach = mask.reach * 1.05 + 3 * motion.wave
    coarsest = (photo.side - 1) / (2 * (reach + MARGIN + 1))
    finest = min(1.0, coarsest)
    for _ in range(6):
        density = math.exp(generator.uniform(math.log(finest), math.log(min(4.0, max(coarsest, finest)))))
        texture, fineness, corner = _cut(generator, photo, density, (-reach, -reach, reach, reach))
        if detail(texture) >= FLAT or generator.random() < 0.15:
            break
    return Layer(_recolor(generator, texture), fineness, corner, motion, mask)


def draw_mask(generator: np.random.Generator, size: float, limit: float) -> Mask:
    """A blob, a polygon or a stick of about radius `size`, no further than `limit` from its middle."""
    angles = np.arange(OUTLINE_POINTS) * (2 * math.pi / OUTLINE_POINTS)
    radii = np.ones(OUTLINE_POINTS)
    kind = generator.random()
    if kind < 0.5:
        for wiggles in range(1, 7):
            radii += generator.normal(0, 0.22 / wiggles ** 0.7) * np.cos(wiggles * angles + generator.uniform(0, 6.3))
    elif kind < 0.85:
        corners = np.sort(generator.uniform(0, 2 * math.pi, int(generator.integers(3, 9))))
        far = generator.uniform(0.6, 1.4, len(corners))
        reach = 1 / np.interp(angles, corners, 1 / far, period=2 * math.pi)
        radii = np.clip(reach, 0.2, 2)
    stretch = math.exp(abs(generator.normal(0, 0.45 if kind < 0.85 else 1.2)))
    turn = generator.uniform(0, math.pi)
    radii = radii.clip(0.25) / np.sqrt(stretch * np.cos(angles - turn) ** 2 + np.sin(angles - turn) ** 2 / stretch)
    radii = size * radii
    edge = generator.uniform(0.5, 1.5) if generator.random() < 0.8 else generator.uniform(2, 10)
    return Mask(tuple((radii * min(1.0, limit / radii.max())).clip(1.5).tolist()), float(edge))


def _cut(generator: np.random.Generator, photo: Photo, density: float, wanted: tuple[float, float, float, float]
         ) -> tuple[Tensor, float, Vector]:
    """A texture that covers what is wanted of a layer, from a random place of the photograph.

    Args:
        density: photograph pixels per unit.
        wanted: left, top, right and bottom in the layer's coordinates.

    Returns:
        (texture, its pixels per unit, the layer's coordinates of its corner).
    """
    left, top, right, bottom = wanted
    rows, columns = photo.pixels.shape[:2]
    spans = [(right - left + 2 * MARGIN) * density, (bottom - top + 2 * MARGIN) * density]
    spans = [min(span, side) for span, side in zip(spans, (columns, rows))]
    starts = [int(generator.integers(side - math.ceil(span) + 1)) for span, side in zip(spans, (columns, rows))]
    patch = photo.pixels[starts[1]:starts[1] + math.ceil(spans[1]), starts[0]:starts[0] + math.ceil(spans[0])]
    fineness = min(density, OVERSAMPLING)
    if density > OVERSAMPLING:
        size = [max(1, round(span * fineness / density)) for span in patch.shape[1::-1]]
        fineness *= size[0] / (patch.shape[1] * fineness / density)       # what rounding made of it; rows differ by < 1
        patch = np.asarray(Image.fromarray(np.ascontiguousarray(patch)).resize(size, Image.Resampling.HAMMING))
    texture = torch.from_numpy(np.array(patch.transpose(2, 0, 1), dtype=np.float32)) / 255
    return texture, fineness, (left - MARGIN, top - MARGIN)


def detail(texture: Tensor) -> float:
    """Mean absolute difference of neighbours, of white, at the output's scale."""
    half = texture[:, ::OVERSAMPLING, ::OVERSAMPLING]
    return ((half.diff(dim=1).abs().mean() + half.diff(dim=2).abs().mean()) / 2).item()


def _recolor(generator: np.random.Generator, texture: Tensor) -> Tensor:
    """Other light on the same photograph: gamma, white balance, saturation; sometimes mirrored."""
    gray = texture.mean(dim=0, keepdim=True)
    texture = gray + (texture - gray) * float(generator.uniform(0.5, 1.2))
    gains = torch.tensor(generator.normal(1, 0.04, (3, 1, 1)), dtype=torch.float32)
    texture = texture.clamp(0, 1) ** math.exp(generator.normal(0, 0.15)) * gains
    return (texture.flip(2) if generator.random() < 0.5 else texture).clamp(0, 1).contiguous()

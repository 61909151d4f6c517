"""A thyroid nodule as echoes: from its ACR features to maps of echogenicity, calcium and shadow.

Lengths are millimetres, echogenicity decibels relative to normal thyroid. What belongs to the patient (form,
cysts, calcifications) is drawn once and placed anew in every view.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter  # type: ignore[attr-defined]
from scipy.spatial import KDTree

from demo.tirads import Features

Map = NDArray[np.floating[Any]]  # float32 throughout, for speed
Array = NDArray[np.float64]

FLUID = -34.0
SOLID = {
    "anechoic": FLUID,
    "iso or hyperechoic": 5.0,
    "hypoechoic": -10.0,
    "very hypoechoic": -18.0,  # darker than the strap muscles, which is how the lexicon defines it
}
ROUGHNESS = {"irregular": 0.1, "extrathyroidal": 0.05}  # of the contour, per harmonic from the fifth


@dataclass(frozen=True)
class Nodule:
    """What stays the same in every view. Points and radii are in units of the nodule's semi-axes."""

    features: Features
    half_width: float
    half_height: float
    outline: Array  # (K, 2) amplitude and phase of the contour's harmonics 2 to K + 1
    cysts: Array  # (n, 3) x, y, radius of a mixed nodule's fluid
    cells: Array  # (n, 2) centres of a spongiform nodule's spaces
    coarse: Array  # (n, 2) macrocalcifications
    punctate: Array  # (n, 2)
    rim: tuple[float, float]  # where the calcified arc begins and how far it runs, radians


@dataclass(frozen=True)
class Echoes:
    """Maps of one view, all (H, W)."""

    mask: NDArray[np.bool_]
    inside: Map  # 0 to 1, soft where the margin is ill-defined
    tissue: Map  # dB, of the nodule wherever it is
    halo: Map  # dB, added to what surrounds it
    calcium: Map  # amplitude, normal thyroid being 1
    behind: Map  # dB, added to all that lies deeper: shadow below zero, enhancement above


def grow_nodule(features: Features, rng: np.random.Generator) -> Nodule:
    """The nodule of one patient."""
    taller = features.shape == "taller"
    long = rng.uniform(7.2, 8.4 if taller else 9.4)
    short = long * rng.uniform(0.46, 0.58)
    order = np.arange(2, 11)
    rough = ROUGHNESS.get(features.margin, 0.005)
    strength = np.where(order >= 5, rough, 0.015) * rng.uniform(0.6, 1.4, order.size)
    cysts = _scatter(rng, int(rng.integers(2, 4)), 0.5, apart=0.55)
    return Nodule(
        features=features,
        half_width=short if taller else long,
        half_height=long if taller else short,
        outline=np.column_stack([strength, rng.uniform(0, 2 * np.pi, order.size)]),
        cysts=np.column_stack([cysts, rng.uniform(0.3, 0.44, len(cysts))]),
        cells=_scatter(rng, 60, 1.1, apart=0.2),
        coarse=_scatter(rng, 1 + int(rng.random() < 0.35), 0.5, apart=0.6),
        punctate=_scatter(rng, int(rng.integers(16, 24)), 0.8, apart=0.18),
        rim=(rng.uniform(0, 2 * np.pi), rng.uniform(1.5, 2.0) * np.pi),
    )


def echoes(nodule: Nodule, x: Map, y: Map, tilt: float, rng: np.random.Generator) -> Echoes:
    """The nodule in one view.

    `x`, `y`: (H, W) position in mm from the nodule's centre; `tilt`: radians. The distance to the contour is
    taken along the ray from the centre, which is near enough for so round a body.
    """
    features = nodule.features
    across = (x * math.cos(tilt) + y * math.sin(tilt)) / nodule.half_width
    down = (y * math.cos(tilt) - x * math.sin(tilt)) / nodule.half_height
    radius = np.hypot(across, down)
    angle = np.arctan2(down, across)
    contour = np.ones_like(radius)
    for order, (strength, phase) in enumerate(nodule.outline.tolist(), start=2):
        contour += strength * np.cos(order * angle + phase)
    distance = np.hypot(x, y) * (1 - contour / np.maximum(radius, 1e-3))
    mask = distance < 0
    edge = 0.15
    blurred = distance
    if features.margin == "ill-defined":
        edge = 1.1
        blurred = distance + _blotches(rng, distance.shape, 7.0, 0.9)
    calcium, shadow = _calcium(nodule, x, y, across, down, distance, angle)
    return Echoes(
        mask=mask,
        inside=_step(-blurred / edge),
        tissue=_tissue(nodule, across, down, distance, rng),
        halo=_halo(features, distance),
        calcium=calcium,
        behind=shadow + _enhancement(features, x, y, nodule),
    )


def _tissue(nodule: Nodule, across: Map, down: Map, distance: Map, rng: np.random.Generator) -> Map:
    features = nodule.features
    solid = SOLID[features.echogenicity] + _blotches(rng, across.shape, 4.0, 1.2)
    if features.composition == "cystic":
        return np.full_like(across, FLUID)
    if features.composition == "spongiform":
        around = np.hypot(across, down) < 1.5
        near, _ = KDTree(nodule.cells).query(  # type: ignore[no-untyped-call]
            np.column_stack([across[around], down[around]]), k=2
        )
        septum = np.ones_like(across)
        septum[around] = _step((0.09 - near[:, 1] + near[:, 0]) / 0.02)
        return _blend(septum, solid + 3, -24)
    if features.composition == "mixed":
        field = np.zeros_like(across)
        for cx, cy, size in nodule.cysts.tolist():
            field += np.exp(-0.7 * ((across - cx) ** 2 + (down - cy) ** 2) / size**2)
        fluid = _step((field - 0.5) / 0.05) * _step((-distance - 0.7) / 0.15)
        return _blend(1 - fluid, solid, FLUID)
    return solid


def _halo(features: Features, distance: Map) -> Map:
    """A smooth solid nodule pushes a thin dark rim of compressed tissue before it; others show none."""
    if features.margin != "smooth" or features.composition == "cystic":
        return np.zeros_like(distance)
    return _float32(-11 * np.exp(-(((distance - 0.35) / 0.4) ** 2)))


def _calcium(nodule: Nodule, x: Map, y: Map, across: Map, down: Map, distance: Map, angle: Map) -> tuple[Map, Map]:
    calcium, shadow = np.zeros_like(x), np.zeros_like(x)
    foci = nodule.features.foci
    if "punctate" in foci:
        for u, v in nodule.punctate.tolist():
            right, deep = (across - u) * nodule.half_width, (down - v) * nodule.half_height
            calcium += 4.5 * np.exp(-(right**2 + deep**2) / (2 * 0.25**2))
    if "macrocalcifications" in foci:
        for u, v in nodule.coarse.tolist():
            right, deep = (across - u) * nodule.half_width, (down - v) * nodule.half_height
            calcium += 9 * _step((1 - np.hypot(right / 1.7, deep / 0.65)) / 0.15)
            shadow -= 20 * _step((1.55 - np.abs(right)) / 0.2) * _step(deep / 0.3)
    if "peripheral" in foci:
        start, length = nodule.rim
        calcium += 7 * (np.mod(angle - start, 2 * np.pi) < length) * np.exp(-((distance / 0.38) ** 2))
        side = np.abs(np.abs(x) - nodule.half_width * 0.9)
        shadow -= 9 * _step((1 - side) / 0.3) * _step(y - 1)
    return calcium, shadow


def _enhancement(features: Features, x: Map, y: Map, nodule: Nodule) -> Map:
    """Fluid attenuates nothing, so what lies behind it comes out brighter."""
    gain = {"cystic": 6.0, "mixed": 2.0}.get(features.composition, 0.0)
    column = _step((nodule.half_width * 0.85 - np.abs(x)) / 0.5)
    return gain * column * _step((y - nodule.half_height) / 0.4)


def _scatter(rng: np.random.Generator, count: int, reach: float, apart: float) -> Array:
    """Up to `count` points in the disc of radius `reach`, no two nearer than `apart`."""
    kept, found = np.empty((count, 2)), 0
    for _ in range(count * 20):
        point = rng.uniform(-reach, reach, 2)
        if np.hypot(*point) < reach and (np.hypot(*(point - kept[:found]).T) > apart).all():
            kept[found] = point
            found += 1
        if found == count:
            break
    return kept[:found]


def _blotches(rng: np.random.Generator, shape: tuple[int, ...], size: float, strength: float) -> Map:
    """Smooth noise of standard deviation about `strength`; `size` in pixels."""
    smooth = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), size, mode="wrap", truncate=2.5)
    return _float32(smooth * (strength * size * 2 * math.sqrt(math.pi)))


def _blend(share: Map, of: Map, rest: float) -> Map:
    return _float32(share * of + (1 - share) * rest)


def _step(value: Map) -> Map:
    """0 well below zero, 1 well above it."""
    return _float32(0.5 * (1 + np.tanh(value)))


def _float32(value: NDArray[Any]) -> Map:
    return value.astype(np.float32, copy=False)

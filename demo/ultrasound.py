"""A B-mode image of the neck: tissue layers, the speckle of a scanner, and what each centre does to them.

Speckle is made as it arises: random scatterers, weighted by the tissue's echogenicity, are blurred by a
point-spread function that is wider across the beam than along it; the envelope is compressed to grey.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter  # type: ignore[attr-defined]

from demo.nodule import FLUID, Map, Nodule, echoes

LOOKS = 3  # compound angles whose envelopes are averaged, as scanners do against speckle

MIDDLE_GREY = 0.52  # of normal thyroid at unit gain


@dataclass(frozen=True)
class Site:
    """A centre and its scanner."""

    name: str
    width: int  # pixels
    height: int
    pitch: float  # mm per pixel
    gain: float  # dB
    dynamic_range: float  # dB from black to white
    axial: float  # mm, standard deviation of the point-spread function along the beam
    lateral: float  # mm, and across it
    noise: float  # amplitude of the electronics, normal thyroid being 1


SITES = (
    Site("A Harbour Hospital", 224, 192, 0.17, 0.0, 52.0, 0.11, 0.24, 0.015),
    Site("B Meadow Clinic", 256, 208, 0.15, 6.0, 60.0, 0.09, 0.2, 0.008),
    Site("C University Hospital", 192, 160, 0.2, -3.0, 52.0, 0.17, 0.36, 0.04),
)


@dataclass(frozen=True)
class Neck:
    """What of a patient's neck stays the same in every view (mm)."""

    capsule_depth: float
    lobe_height: float
    carotid_side: int  # -1 left, 1 right
    nodule_offset: tuple[float, float]  # from the lobe's centre


def grow_neck(rng: np.random.Generator) -> Neck:
    """The neck of one patient."""
    return Neck(
        capsule_depth=rng.uniform(7.0, 8.2),
        lobe_height=rng.uniform(20.0, 21.0),
        carotid_side=int(rng.choice([-1, 1])),
        nodule_offset=(rng.uniform(-3.0, 3.0), rng.uniform(-0.8, 0.8)),
    )


def scan(
    neck: Neck, nodule: Nodule, site: Site, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """One view: the image (H, W) uint8 and the nodule's mask (H, W) bool, of the site's image size."""
    columns = (np.arange(site.width) - site.width / 2 + 0.5) * site.pitch
    rows = (np.arange(site.height) + 0.5) * site.pitch
    x, y = (part.astype(np.float32) for part in np.meshgrid(columns, rows))

    shift = rng.uniform(-1.5, 1.5)
    depth = neck.capsule_depth + rng.uniform(-0.5, 0.5)
    nodule_x = shift + neck.nodule_offset[0] + rng.uniform(-1, 1)
    if nodule.features.margin == "extrathyroidal":
        nodule_y = depth + 0.55 * nodule.half_height
    else:
        slack = max(neck.lobe_height / 2 - nodule.half_height - 1.2, 0.0)
        wanted = neck.nodule_offset[1] + rng.uniform(-1, 1)
        nodule_y = depth + neck.lobe_height / 2 + float(np.clip(wanted, -slack, slack))
    seen = echoes(nodule, x - nodule_x, y - nodule_y, rng.uniform(-0.12, 0.12), rng)

    tissue, lines = _layers(neck, x - shift, y, depth, site, rng)
    tissue = (tissue + seen.halo) * (1 - seen.inside) + seen.tissue * seen.inside
    bright = lines * (1 - seen.inside) * np.power(10, seen.behind / 20) + seen.calcium
    envelope = _envelope(tissue + seen.behind, bright, site, rng)
    return _grey(envelope, y, site, rng), seen.mask


def _layers(neck: Neck, x: Map, y: Map, depth: float, site: Site, rng: np.random.Generator) -> tuple[Map, Map]:
    """Echogenicity (dB) of skin, fat, muscle, thyroid and carotid; amplitude of the bright lines between."""
    fibres = _fibres(rng, x.shape, site)
    fascia = 4.2 + 0.3 * np.sin(x / 5)
    tissue = np.where(y < fascia, -4 + 3.5 * fibres, -9 + 4 * fibres)  # fat and its septa; muscle
    tissue = np.where(y < 1.4, 7, tissue)  # skin

    bow = 0.006 * x**2
    top, bottom = depth + bow, depth + neck.lobe_height - bow
    reach = np.abs(x / 17.5) ** 4 + np.abs((y - (top + bottom) / 2) / (neck.lobe_height / 2)) ** 4
    lobe = 0.5 * (1 + np.tanh((1 - reach) / 0.08))
    grain = 12 * gaussian_filter(rng.standard_normal(x.shape, dtype=np.float32), 5, truncate=2.5)
    tissue = tissue * (1 - lobe) + grain * lobe

    carotid = np.hypot(x - neck.carotid_side * 19.5, (y - depth - 12) / 1.1)
    tissue = np.where(carotid < 3.4, FLUID, tissue)

    capsule = 2.6 * _line(y - top) + 1.8 * _line(y - bottom)
    lines = capsule * (np.abs(x) < 16.5) + 1.8 * _line(carotid - 3.5) + 1.5 * _line(y - fascia)
    return tissue.astype(np.float32), lines.astype(np.float32)


def _line(distance: Map) -> Map:
    line: Map = np.exp(-((distance / 0.3) ** 2))
    return line


def _fibres(rng: np.random.Generator, shape: tuple[int, ...], site: Site) -> Map:
    """Streaks along the skin, of standard deviation 1."""
    size = (0.25 / site.pitch, 3.0 / site.pitch)
    streaks = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), size, mode="wrap", truncate=2.5)
    scaled: Map = streaks / streaks.std()
    return scaled


def _envelope(tissue: Map, reflectors: Map, site: Site, rng: np.random.Generator) -> Map:
    """Amplitude of the echoes: speckle of scattering tissue (dB), reflectors (amplitude), noise."""
    scatter = np.power(10, tissue / 20, dtype=np.float32)
    spread = (site.axial / site.pitch, site.lateral / site.pitch)
    power = np.zeros_like(tissue)
    for _ in range(LOOKS):
        for _ in ("in phase", "in quadrature"):
            white = rng.standard_normal(tissue.shape, dtype=np.float32)
            power += gaussian_filter(scatter * white, spread, truncate=3) ** 2
    # Blurred white noise keeps 1 / (4 pi axial lateral) of its power: undone, so that 0 dB stays 0 dB.
    speckle = np.sqrt(power / (2 * LOOKS) * (4 * np.pi * spread[0] * spread[1]))
    noise = site.noise * rng.standard_normal(tissue.shape, dtype=np.float32)
    envelope: Map = np.hypot(speckle + gaussian_filter(reflectors, spread, truncate=3), noise)
    return envelope


def _grey(envelope: Map, depth: Map, site: Site, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Log compression to 0..255, after a time gain which, as in life, does not quite meet the loss with depth."""
    loss = rng.uniform(0.1, 0.35)  # dB per mm
    decibels = 20 * np.log10(envelope + 1e-4) + site.gain + rng.uniform(-1.5, 1.5) - loss * (depth - 16)
    grey: NDArray[np.uint8] = (255 * np.clip(MIDDLE_GREY + decibels / site.dynamic_range, 0, 1)).astype(np.uint8)
    return grey

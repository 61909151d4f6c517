"""A B-mode image of the neck: tissue layers, the speckle of a scanner, and what each centre does to them.

Speckle is made as it arises: random scatterers, weighted by the tissue's echogenicity, are blurred by a
point-spread function that is wider across the beam than along it; the envelope is compressed to grey.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from demo.nodule import Echoes, Map, Nodule, echoes

LOOKS = 4  # compound angles whose envelopes are averaged, as scanners do against speckle


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
    Site("C University Hospital", 192, 160, 0.2, -4.0, 48.0, 0.17, 0.36, 0.04),
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
        capsule_depth=rng.uniform(7.5, 9.0),
        lobe_height=rng.uniform(18.0, 19.5),
        carotid_side=int(rng.choice([-1, 1])),
        nodule_offset=(rng.uniform(-3.5, 3.5), rng.uniform(-0.8, 0.8)),
    )


def scan(
    neck: Neck, nodule: Nodule, site: Site, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """One view: the image (H, W) uint8 and the nodule's mask (H, W) bool, in the size of the site's scanner."""
    columns = (np.arange(site.width, dtype=np.float32) - site.width / 2 + 0.5) * np.float32(site.pitch)
    rows = (np.arange(site.height, dtype=np.float32) + 0.5) * np.float32(site.pitch)
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
    seen = echoes(nodule, x - np.float32(nodule_x), y - np.float32(nodule_y), rng.uniform(-0.12, 0.12), rng)

    tissue, capsule = _layers(neck, x - np.float32(shift), y, depth, site, rng)
    tissue = (tissue + seen.halo) * (1 - seen.inside) + seen.tissue * seen.inside
    reflectors = capsule * (1 - seen.inside)
    return _image(tissue + seen.behind, reflectors, seen, y, site, rng), seen.mask


def _layers(
    neck: Neck, x: Map, y: Map, depth: float, site: Site, rng: np.random.Generator
) -> tuple[Map, Map]:
    """Echogenicity (dB) of skin, fat, strap muscle, thyroid and what lies around it; and the bright capsule."""
    fibres = _fibres(rng, x.shape, site)
    bow = np.float32(0.006) * x**2
    top, bottom = np.float32(depth) + bow, np.float32(depth + neck.lobe_height) - bow
    tissue = -9 + 4 * fibres  # muscle, above the lobe and below it
    tissue = np.where(y < 4.2 + 0.3 * np.sin(x / 5), -4 + 3.5 * fibres, tissue)  # fat and its septa
    tissue = np.where(y < 1.4, np.float32(7), tissue)  # skin
    half = np.float32(neck.lobe_height / 2)
    reach = np.abs(x / np.float32(17.5)) ** 4 + np.abs((y - (top + bottom) / 2) / half) ** 4
    inside = np.float32(0.5) * (1 + np.tanh((1 - reach) / np.float32(0.08)))
    lobe = gaussian_filter(rng.standard_normal(x.shape, dtype=np.float32), 5, truncate=2.5) * 12
    tissue = tissue * (1 - inside) + lobe * inside
    away = np.hypot((x - np.float32(neck.carotid_side * 19.5)), (y - np.float32(depth + 12)) / 1.1)
    tissue = np.where(away < 3.4, np.float32(-34), tissue)
    capsule = np.float32(2.6) * (
        np.exp(-(((y - top) / 0.3) ** 2)) + 0.7 * np.exp(-(((y - bottom) / 0.3) ** 2))
    )
    capsule = capsule * (np.abs(x) < 16.5)
    capsule += np.float32(1.8) * np.exp(-(((away - 3.5) / 0.3) ** 2))
    capsule += np.float32(1.5) * np.exp(-(((y - 4.2 - 0.3 * np.sin(x / 5)) / 0.25) ** 2))
    return tissue.astype(np.float32), capsule.astype(np.float32)


def _fibres(rng: np.random.Generator, shape: tuple[int, ...], site: Site) -> Map:
    """Streaks along the skin, of standard deviation 1."""
    along, thick = 3.0 / site.pitch, 0.25 / site.pitch
    streaks = gaussian_filter(
        rng.standard_normal(shape, dtype=np.float32), (thick, along), mode="wrap", truncate=2.5
    )
    return (streaks / streaks.std()).astype(np.float32)


def _image(
    tissue: Map, reflectors: Map, seen: Echoes, y: Map, site: Site, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Scatter, blur, envelope, time gain, compression to grey."""
    amplitude = np.power(np.float32(10), tissue / 20, dtype=np.float32)
    spread = (site.axial / site.pitch, site.lateral / site.pitch)
    # The blur of white noise keeps 1 / (4 pi s_axial s_lateral) of its power: undone, so that 0 dB stays 0 dB.
    kept = np.sqrt(4 * np.pi * max(spread[0], 0.3) * max(spread[1], 0.3))
    power = np.zeros_like(tissue)
    for _ in range(LOOKS):
        for _ in ("in phase", "in quadrature"):
            wave = gaussian_filter(
                amplitude * rng.standard_normal(tissue.shape, dtype=np.float32), spread, truncate=3
            )
            power += (wave * np.float32(kept)) ** 2
    dimmed = np.power(np.float32(10), seen.behind / 20, dtype=np.float32)
    shine = gaussian_filter(reflectors * dimmed + seen.calcium, spread, truncate=3)
    envelope = np.sqrt(power / (2 * LOOKS)) + shine
    envelope = np.hypot(
        envelope, np.float32(site.noise) * np.abs(rng.standard_normal(y.shape, dtype=np.float32))
    )
    # The operator's time gain never quite meets the loss with depth: bright near the probe, dim far away.
    slope = rng.uniform(-0.35, -0.1)
    decibels = 20 * np.log10(envelope + np.float32(1e-4)) + site.gain + slope * (y - 16)
    decibels += rng.uniform(-1.5, 1.5)
    grey = np.clip(0.52 + decibels / site.dynamic_range, 0, 1) * 255
    return grey.astype(np.uint8)

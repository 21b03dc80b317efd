"""Renders a folder of heads under several lights, for the tutorials.

Photographs of people may not be redistributed. These heads are drawn from a height map with
Lambert's law, so that anybody can run the tutorials.

    python docs/examples/heads.py heads --people 24 --lights 25
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 128
AMBIENT = 0.06


def bump(x, y, centre_x, centre_y, width, height):
    """A Gaussian hill of height 1, elliptic, float64 [SIDE, SIDE]."""
    return np.exp(-(((x - centre_x) / width) ** 2) - ((y - centre_y) / height) ** 2)


def head(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a person's shape and colours.

    Args:
        rng: Source of the person's features.

    Returns:
        Unit normals [SIDE, SIDE, 3], colours in [0, 1] [SIDE, SIDE, 3], and a mask [SIDE, SIDE] of
        the head.
    """
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j] * 1.05
    wide, tall = rng.uniform(0.62, 0.8), rng.uniform(0.86, 0.98)
    inside = (x / wide) ** 2 + (y / tall) ** 2
    mask = inside < 1
    depth = 0.9 * np.sqrt(np.clip(1 - inside, 0, None))
    apart, level = rng.uniform(0.22, 0.31), rng.uniform(-0.2, -0.06)
    nose, mouth = rng.uniform(0.08, 0.15), rng.uniform(0.42, 0.54)
    depth += rng.uniform(0.15, 0.3) * bump(x, y, 0, level + 0.28, nose, 0.2)
    depth += rng.uniform(0.04, 0.09) * bump(x, y, 0, mouth, 0.2, 0.05)
    for side in (-1, 1):
        depth -= rng.uniform(0.08, 0.12) * bump(x, y, side * apart, level, 0.13, 0.08)
        depth += rng.uniform(0.03, 0.08) * bump(x, y, side * apart * 1.2, level + 0.32, 0.17, 0.14)
    step = y[1, 0] - y[0, 0]
    down, right = np.gradient(depth, step)
    normals = np.stack([-right, -down, np.ones_like(depth)], axis=-1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return normals, paint(rng, x, y, mask, apart, level, mouth), mask


def paint(rng: np.random.Generator, x, y, mask, apart, level, mouth) -> np.ndarray:
    """Colour skin, hair, brows, eyes and mouth. Returns float64 [SIDE, SIDE, 3] in [0, 1]."""
    skin = np.array([1.0, 0.78, 0.62]) * rng.uniform(0.45, 0.95)
    hair = rng.choice([[0.08, 0.06, 0.05], [0.35, 0.2, 0.08], [0.75, 0.6, 0.3], [0.5, 0.5, 0.5]])
    colours = np.broadcast_to(skin, (SIDE, SIDE, 3)).copy()
    line = rng.uniform(-0.75, -0.5) + rng.uniform(-0.3, 0.5) * x**2
    beard = (y > mouth - 0.12 + 0.8 * x**2) & (rng.random() < 0.35)
    colours[(y < line) | beard] = hair
    colours[bump(x, y, 0, mouth, rng.uniform(0.14, 0.22), 0.045) > 0.4] = skin * [0.85, 0.45, 0.45]
    for side in (-1, 1):
        eye = bump(x, y, side * apart, level, 0.1, 0.06)
        colours[eye > 0.35] = 0.95
        colours[bump(x, y, side * apart, level, 0.045, 0.045) > 0.4] = rng.uniform(0, 0.3, 3)
        brow = bump(x, y, side * apart, level - 0.14 - 0.1 * np.abs(x) ** 2, 0.13, 0.03)
        colours[brow > 0.4] = hair
    colours[~mask] = 0.12
    return colours


def lit(normals: np.ndarray, colours: np.ndarray, mask: np.ndarray, light) -> Image.Image:
    """Light a head from an azimuth and an elevation in degrees, by Lambert's law."""
    azimuth, elevation = np.radians(light)
    direction = [
        np.sin(azimuth) * np.cos(elevation),
        -np.sin(elevation),
        np.cos(azimuth) * np.cos(elevation),
    ]
    shade = AMBIENT + (1 - AMBIENT) * np.clip(normals @ direction, 0, None)
    shade[~mask] = 0.5
    return Image.fromarray((255 * np.clip(colours * shade[..., None], 0, 1)).astype(np.uint8))


def main() -> None:
    """Write FOLDER/PERSON/LIGHT.png for every person and light."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--lights", type=int, default=25, help="a square number")
    wanted = parser.parse_args()
    side = int(wanted.lights**0.5)
    lights = [(a, e) for e in np.linspace(-40, 50, side) for a in np.linspace(-75, 75, side)]
    for person in range(wanted.people):
        folder = wanted.folder / f"person{person:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        shape = head(np.random.default_rng(person))
        for azimuth, elevation in lights:
            lit(*shape, (azimuth, elevation)).save(folder / f"A{azimuth:+.0f}E{elevation:+.0f}.png")


if __name__ == "__main__":
    main()

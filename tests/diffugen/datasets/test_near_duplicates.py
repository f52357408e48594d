import io

import numpy as np
import pytest
from PIL import Image

from diffugen.datasets.near_duplicates import NUM_BITS, SeenImages, near_duplicates, perceptual_hash
from diffugen.toyworld import render
from diffugen.toyworld.scene import COMMON_KINDS, sample_scene

SIZE_HW = (96, 160)


def scenes(num: int) -> list[np.ndarray]:
    return [render(sample_scene(52_000_000 + k, kinds=COMMON_KINDS), SIZE_HW).image for k in range(num)]


def as_jpeg(image: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=75)
    return np.asarray(Image.open(buffer))


TWINS = {
    "the same": lambda image: image,
    "another size": lambda image: np.asarray(Image.fromarray(image).resize((81, 49))),
    "JPEG": as_jpeg,
    "brighter": lambda image: np.clip(image * 1.1, 0, 255).astype(np.uint8),
}


@pytest.mark.parametrize("change", TWINS.values(), ids=TWINS.keys())
def test_twins_are_recognised(change) -> None:
    images = scenes(12)
    found = near_duplicates([*images, *(change(image) for image in images)])
    assert found[:12] == [None] * 12
    assert sum(twin == number for number, twin in enumerate(found[12:])) >= 11


def test_other_scenes_mirrored_ones_and_other_colours_are_no_twins() -> None:
    images = scenes(40)
    mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in images]
    assert near_duplicates([*images, *mirrored]) == [None] * 80
    road = np.full((*SIZE_HW, 3), 120, np.uint8)
    red, blue = road.copy(), road.copy()
    red[30:70, 20:90], blue[30:70, 20:90] = (220, 30, 30), (30, 30, 220)
    assert near_duplicates([red, blue, red]) == [None, None, 0]


def test_the_distance_decides() -> None:
    first, second = scenes(2)
    share = (perceptual_hash(first) ^ perceptual_hash(second)).bit_count() / NUM_BITS
    assert near_duplicates([first, second], share) == [None, 0]
    assert near_duplicates([first, second], share - 1 / NUM_BITS) == [None, None]
    with pytest.raises(ValueError, match=r"max_distance=1\.5 must lie in \[0, 1\]"):
        near_duplicates([], 1.5)


@pytest.mark.parametrize("max_distance", [0.0, 0.06, 0.1, 0.3])
def test_the_index_finds_what_comparing_every_pair_finds(max_distance: float) -> None:
    rng = np.random.default_rng(3)
    seen, kept = SeenImages(max_distance), []
    for number in range(400):
        bits = int.from_bytes(rng.bytes(NUM_BITS // 8), "big")
        if kept and number % 2:  # up to 24 bits from one that is there
            bits = kept[rng.integers(len(kept))][1]
            for position in rng.choice(NUM_BITS, rng.integers(25), replace=False):
                bits ^= 1 << int(position)
        first = next((name for name, other in kept if (bits ^ other).bit_count() <= max_distance * NUM_BITS), None)
        assert seen.twin_of_hash(str(number), bits) == first
        if first is None:
            kept.append((str(number), bits))
    assert 200 <= len(kept) < 400

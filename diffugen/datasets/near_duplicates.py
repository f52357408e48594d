"""Images that look alike: what a generator with too few prompts or seeds, or a folder of photo bursts, is full of."""

from __future__ import annotations

from collections.abc import Iterable

import imagehash
import numpy as np
from PIL import Image

NUM_BITS = 3 * 64

DEFAULT_DISTANCE = 0.06
"""Share of bits in which near-duplicates differ at most.

Copies that were compressed, scaled, lit or shifted by a hundredth differ in up to 0.06 of theirs as a rule; of
194 unrelated pictures no two differed in less than 0.12 (docs/log.md).
"""


def perceptual_hash(image: np.ndarray) -> int:
    """192 bits: which low frequencies of each colour channel are above their median (pHash, Zauner 2010).

    Args:
        image: uint8 [H, W, 3] RGB.
    """
    bits = [imagehash.phash(Image.fromarray(image[..., channel])).hash.ravel() for channel in range(3)]
    return int.from_bytes(np.packbits(np.concatenate(bits)).tobytes(), "big")


class SeenImages:
    """The images of a dataset so far; asked about each further one.

    Args:
        max_distance: as for `near_duplicates`.
    """

    def __init__(self, max_distance: float = DEFAULT_DISTANCE) -> None:
        if not 0 <= max_distance <= 1:
            raise ValueError(f"max_distance={max_distance} must lie in [0, 1]; it is a share of bits")
        self.max_bits = max_distance * NUM_BITS
        self.hashes: dict[str, int] = {}

    def twin(self, name: str, image: np.ndarray) -> str | None:
        """The name of the first image that looks like this one; None if it is new, and it is then remembered."""
        bits = perceptual_hash(image)
        for earlier, other in self.hashes.items():
            if (bits ^ other).bit_count() <= self.max_bits:
                return earlier
        self.hashes[name] = bits
        return None


def near_duplicates(images: Iterable[np.ndarray], max_distance: float = DEFAULT_DISTANCE) -> list[int | None]:
    """For each image the number of an earlier one that it looks like; None for those worth keeping.

    Twins of twins are compared with the first, so chains of small changes do not swallow a dataset.

    Args:
        images: uint8 [H, W, 3] RGB, of any sizes; taken one at a time.
        max_distance: share of the hash's 192 bits, 0 to 1, in which twins differ at most; of unrelated images
            about half differ.

    Raises:
        ValueError: max_distance is out of range.
    """
    seen = SeenImages(max_distance)
    twins = (seen.twin(str(number), image) for number, image in enumerate(images))
    return [None if twin is None else int(twin) for twin in twins]

"""Images that look alike: what a generator with too few prompts or seeds, or a folder of photo bursts, is full of."""

from __future__ import annotations

from array import array
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


MIN_CHUNK_BITS = 8
"""Below that, so many hashes share a chunk that looking at all of them is as fast."""


class SeenImages:
    """The images of a dataset so far; asked about each further one.

    Hashes are found by multi-index hashing (Norouzi et al. 2012): of hashes that differ in at most r bits, one of r + 1
    chunks is equal, so only those that share a chunk are compared. Takes 72 bytes an image and its name.

    Args:
        max_distance: as for `near_duplicates`.
    """

    def __init__(self, max_distance: float = DEFAULT_DISTANCE) -> None:
        if not 0 <= max_distance <= 1:
            raise ValueError(f"max_distance={max_distance} must lie in [0, 1]; it is a share of bits")
        self.max_bits = int(max_distance * NUM_BITS)
        self.names: list[str] = []
        self.hashes = bytearray()
        num_chunks = self.max_bits + 1
        self.chunk_bits = NUM_BITS // num_chunks
        if self.chunk_bits < MIN_CHUNK_BITS:
            num_chunks, self.chunk_bits = 1, 0
        self.latest: list[dict[int, int]] = [{} for _ in range(num_chunks)]
        """By chunk and its value, the number of the latest image that has it."""
        self.before = [array("i") for _ in range(num_chunks)]
        """By chunk and image, the number of the image before it that has the same value, or -1."""

    def twin(self, name: str, image: np.ndarray) -> str | None:
        """The name of the first image that looks like this one; None if it is new, and it is then remembered."""
        return self.twin_of_hash(name, perceptual_hash(image))

    def twin_of_hash(self, name: str, bits: int) -> str | None:
        """Like `twin`, for an image whose `perceptual_hash` is known."""
        values = self._chunks(bits)
        alike = [number for number in self._sharing(values) if (bits ^ self._hash(number)).bit_count() <= self.max_bits]
        if alike:
            return self.names[min(alike)]
        for latest, before, value in zip(self.latest, self.before, values, strict=True):
            before.append(latest.get(value, -1))
            latest[value] = len(self.names)
        self.names.append(name)
        self.hashes += bits.to_bytes(NUM_BITS // 8, "big")
        return None

    def _chunks(self, bits: int) -> list[int]:
        mask = (1 << self.chunk_bits) - 1
        return [bits >> number * self.chunk_bits & mask for number in range(len(self.latest))]

    def _sharing(self, values: list[int]) -> set[int]:
        """Numbers of the images that share a chunk with these values."""
        found: set[int] = set()
        for latest, before, value in zip(self.latest, self.before, values, strict=True):
            number = latest.get(value, -1)
            while number >= 0:
                found.add(number)
                number = before[number]
        return found

    def _hash(self, number: int) -> int:
        size = NUM_BITS // 8
        return int.from_bytes(self.hashes[number * size : (number + 1) * size], "big")


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

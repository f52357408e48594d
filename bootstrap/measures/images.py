"""How good and how various a set of images is, by features that need no download.

The features are the means over the pixels of the base detector's last backbone layer: offline for everybody, the same
in every round, and trained on something else than the rare object. They are no Inception features, so the figures
compare rounds and runs with one another, not with published FID or KID.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def vendi_score(features: np.ndarray) -> float:
    """The effective number of different images among n, from 1 to n (Friedman and Dieng, TMLR 2023).

    The exponential of the entropy of the eigenvalues of K / n, where K is the matrix of cosine similarities.

    Args:
        features: float [n, d], n at least 1.
    """
    singular = np.linalg.svd(_unit(features), compute_uv=False)
    weights = singular**2 / len(features)
    weights = weights[weights > 1e-12]
    return float(np.exp(-(weights * np.log(weights)).sum()))


def mean_distance(features: np.ndarray) -> float:
    """Mean cosine distance of two different images, in [0, 2].

    Args:
        features: float [n, d], n at least 2.
    """
    similarities = _unit(features) @ _unit(features).T
    n = len(features)
    return float(1 - (similarities.sum() - np.trace(similarities)) / (n * (n - 1)))


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared maximum mean discrepancy of two sets, unbiased, with KID's cubic kernel (Bińkowski et al., ICLR 2018).

    Cosines take the place of KID's products over the dimension, so that the features' scale does not count. Around 0
    for two samples of one distribution (it can fall below).

    Args:
        a, b: float [n, d] and [m, d], n and m at least 2.
    """
    a, b = _unit(a), _unit(b)
    within = [(_cubic(x, x).sum() - np.trace(_cubic(x, x))) / (len(x) * (len(x) - 1)) for x in (a, b)]
    return float(sum(within) - 2 * _cubic(a, b).mean())


def measure_sets(features: np.ndarray, references: dict[str, np.ndarray]) -> dict[str, float | None]:
    """All measures of one set of images; None where there are too few images for one.

    Args:
        features: one row per image.
        references: name -> features of other images that the set is compared with.

    Returns:
        "vendi_score", "mean_distance", and "kernel_distance_<name>" for each reference.
    """
    enough = len(features) > 1
    return {
        "vendi_score": vendi_score(features) if enough else None,
        "mean_distance": mean_distance(features) if enough else None,
        **{
            f"kernel_distance_{name}": kernel_distance(features, rows) if enough and len(rows) > 1 else None
            for name, rows in references.items()
        },
    }


def _unit(features: np.ndarray) -> np.ndarray:
    rows = features.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _cubic(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a @ b.T + 1) ** 3


def stack(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows as one array; [0, 1] where there are none."""
    return np.stack(rows) if rows else np.zeros((0, 1), np.float32)

import cv2
import numpy as np
import pytest

from diffugen.datasets import yolo
from diffugen.instances import Instances

SIZE_HW = (37, 53)


def drawn(*shapes: tuple[int, int, int, int], holes: tuple[tuple[int, int, int, int], ...] = ()) -> np.ndarray:
    """A mask of rectangles (x1, y1, x2, y2), edges exclusive."""
    mask = np.zeros(SIZE_HW, bool)
    for x1, y1, x2, y2 in shapes:
        mask[y1:y2, x1:x2] = True
    for x1, y1, x2, y2 in holes:
        mask[y1:y2, x1:x2] = False
    return mask


EXACT = {
    "rectangle": drawn((5, 7, 30, 21)),
    "whole image": drawn((0, 0, 53, 37)),
    "far corner": drawn((50, 30, 53, 37)),
    "one pixel": drawn((11, 9, 12, 10)),
    "two pixels": drawn((11, 9, 13, 10)),
    "row": drawn((4, 9, 40, 10)),
    "column": drawn((40, 2, 41, 36)),
    "two by two": drawn((1, 1, 3, 3)),
    "concave": drawn((5, 5, 30, 10), (5, 5, 10, 30)),
    "hole": drawn((5, 5, 40, 30), holes=((10, 10, 20, 20),)),
    "two holes": drawn((2, 2, 50, 35), holes=((5, 5, 12, 12), (30, 20, 44, 30))),
    "hole of one pixel": drawn((5, 5, 9, 9), holes=((6, 6, 7, 7),)),
    "hole in an arm": drawn((2, 2, 8, 30), (2, 24, 50, 30), holes=((40, 26, 44, 28),)),
}


@pytest.mark.parametrize("mask", EXACT.values(), ids=EXACT.keys())
def test_one_part_masks_come_back_exactly(mask: np.ndarray) -> None:
    given = Instances.from_masks(mask[None], [3])
    read = yolo.from_lines(yolo.to_lines(given), SIZE_HW)
    np.testing.assert_array_equal(read.masks, given.masks)
    np.testing.assert_array_equal(read.xyxy, given.xyxy)
    assert read.class_ids.tolist() == [3]


@pytest.mark.parametrize("mask", EXACT.values(), ids=EXACT.keys())
def test_a_path_lies_in_the_first_half_of_its_pixels(mask: np.ndarray) -> None:
    path = yolo.path_of(mask)
    x1, y1, x2, y2 = Instances.from_masks(mask[None], [0]).xyxy[0]
    np.testing.assert_allclose([*path.min(axis=0), *path.max(axis=0)], [x1, y1, x2 - 0.5, y2 - 0.5], atol=0.02)
    np.testing.assert_array_equal(np.floor(path), np.round(path))
    assert len(path) >= 4


def test_random_blobs_come_back_exactly() -> None:
    rng = np.random.default_rng(0)
    noise = cv2.blur(rng.random((61, 83)).astype(np.float32), (5, 5)) > 0.5
    count, parts = cv2.connectedComponents(noise.astype(np.uint8), connectivity=8)
    given = Instances.from_masks(np.stack([parts == i for i in range(1, count)]), range(count - 1))
    read = yolo.from_lines(yolo.to_lines(given), (61, 83))
    assert count > 10
    np.testing.assert_array_equal(read.masks, given.masks)
    assert read.class_ids.tolist() == given.class_ids.tolist()


def disc(x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:120, :160]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


READABLE = {
    "disc of 20 pixels": disc(40, 50, 10),
    "disc of 70 pixels": disc(60, 55, 35),
    "ring": disc(60, 55, 35) & ~disc(66, 50, 14),
    "rings in rings": disc(60, 55, 50) & ~disc(60, 55, 40) | disc(60, 55, 30) & ~disc(60, 55, 12) & ~disc(60, 30, 3),
    "three parts": disc(40, 50, 25) & ~disc(40, 50, 8) | disc(110, 40, 20) | disc(120, 100, 15),
    "touching by corners": np.kron(np.eye(8), np.ones((15, 20))).astype(bool),
}


def supervision_mask(line: str, size_hw: tuple[int, int]) -> np.ndarray:
    pytest.importorskip("supervision")
    from supervision.dataset.formats.yolo import yolo_annotations_to_detections

    return yolo_annotations_to_detections([line], size_hw[::-1], with_masks=True).mask[0].astype(bool)


def ultralytics_mask(line: str, size_hw: tuple[int, int]) -> np.ndarray:
    """As its datasets do it: a thousand points or more, cut to pixels."""
    from diffugen.detector.model import import_ultralytics

    import_ultralytics()
    from ultralytics.data.utils import polygon2mask
    from ultralytics.utils.ops import resample_segments

    points = np.array(line.split()[1:], np.float32).reshape(-1, 2)
    (points,) = resample_segments([points], max(1000, len(points) + 1))
    return polygon2mask(size_hw, [(points * size_hw[::-1]).ravel()]).astype(bool)


@pytest.mark.parametrize("mask", READABLE.values(), ids=READABLE.keys())
def test_other_readers_get_the_mask(mask: np.ndarray) -> None:
    (line,) = yolo.to_lines(Instances.from_masks(mask[None], [0]))
    np.testing.assert_array_equal(yolo.from_lines([line], mask.shape).masks[0], mask)
    for read in (supervision_mask, ultralytics_mask):
        found = read(line, mask.shape)
        least = 0.98 if cv2.connectedComponents(mask.astype(np.uint8))[0] > 2 else 0.99  # bridges add a line
        assert (found & mask).sum() / (found | mask).sum() > least, read.__name__


def test_parts_holes_and_single_pixels_come_back_from_noise() -> None:
    """Also where another tool has written the file again with six decimals."""
    rng = np.random.default_rng(1)
    for size in (1, 2, 4):
        mask = cv2.blur(rng.random((45, 61)).astype(np.float32), (size, size)) > 0.5
        (line,) = yolo.to_lines(Instances.from_masks(mask[None], [0]))
        again = " ".join(["0", *(f"{float(text):.6f}" for text in line.split()[1:])])
        for text in (line, again):
            np.testing.assert_array_equal(yolo.from_lines([text], mask.shape).masks[0], mask)
        assert (supervision_mask(line, mask.shape) ^ mask).sum() < 0.05 * mask.sum()


def test_label_files_of_earlier_versions_are_cut_to_pixels() -> None:
    """Their paths reached the far edges of pixels."""
    corners = [(5.01, 7.01), (29.99, 7.01), (29.99, 20.99), (5.01, 20.99)]
    line = "0 " + " ".join(f"{x / 53:.7f} {y / 37:.7f}" for x, y in corners)
    np.testing.assert_array_equal(yolo.from_lines([line], SIZE_HW).masks[0], EXACT["rectangle"])


def test_supervision_reads_the_same_box(tmp_path) -> None:
    supervision = pytest.importorskip("supervision")
    from diffugen.datasets.folder import write_dataset
    from diffugen.sample import Sample

    given = Instances.from_masks(EXACT["concave"][None], [1])
    write_dataset(tmp_path / "d", [Sample.labelled("a", np.zeros((*SIZE_HW, 3), np.uint8), given, "train")], ["x", "y"])
    root = tmp_path / "d"
    read = supervision.DetectionDataset.from_yolo(
        str(root / "images/train"), str(root / "labels/train"), str(root / "data.yaml"), force_masks=True
    )
    (_, _, detections) = next(iter(read))
    assert read.classes == ["x", "y"] and detections.class_id.tolist() == [1]
    np.testing.assert_allclose(detections.xyxy, given.xyxy, atol=1)


def test_empty_masks_and_blank_lines_are_no_instances() -> None:
    assert yolo.to_lines(Instances.from_masks(np.zeros((1, *SIZE_HW), bool), [0])) == []
    assert len(yolo.from_lines(["", "  "], SIZE_HW)) == 0
    assert yolo.from_lines([], SIZE_HW).size_hw == SIZE_HW


def test_a_box_line_becomes_a_rectangle() -> None:
    read = yolo.from_lines(["2 0.5 0.5 0.5 0.5"], (40, 80))
    assert read.class_ids.tolist() == [2]
    np.testing.assert_allclose(read.xyxy, [[20, 10, 60, 30]], atol=1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("car 0.1 0.1 0.5 0.1 0.5 0.5", "class 'car' is not a number"),
        ("0 0.1 0.1 0.5 x 0.5 0.5", "not a number"),
        ("0 0.1 0.1 0.5", "neither a box nor a polygon"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.5 0.7", "neither a box nor a polygon"),
        ("0 10 10 50 10 50 50", "fractions of the image"),
        ("0 nan 0.1 0.5 0.1 0.5 0.5", "fractions of the image"),
        ("² 0.1 0.1 0.5 0.1 0.5 0.5", "class '²' is not a number"),
        ("99999999999999999999 0.1 0.1 0.5 0.1 0.5 0.5", "is not a number >= 0"),
    ],
)
def test_broken_lines_are_refused(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        yolo.from_lines([line], SIZE_HW)


def test_six_decimals_are_rounded_to_the_pixel() -> None:
    """159 / 426 is written as 0.373239, which is 158.9998 pixels."""
    corners = [(101, 159), (101, 198), (140, 198), (140, 159)]
    line = "0 " + " ".join(f"{x / 640:.6f} {y / 426:.6f}" for x, y in corners)
    (box,) = yolo.from_lines([line], (426, 640)).xyxy
    assert box.tolist() == [101, 159, 141, 199]


def test_repeated_lines_are_one_object() -> None:
    line = "0 0.1 0.1 0.5 0.1 0.5 0.5"
    assert len(yolo.from_lines([line, f" {line}  ", line.replace("0 ", "1 ", 1)], SIZE_HW)) == 2


def as_others_write(paths: list[np.ndarray]) -> str:
    """Parts joined by ultralytics' own converter, six decimals."""
    from diffugen.detector.model import import_ultralytics

    import_ultralytics()
    from ultralytics.data.converter import merge_multi_segment

    points = (
        np.concatenate(merge_multi_segment([path.ravel().tolist() for path in paths])) if len(paths) > 1 else paths[0]
    )
    return "0 " + " ".join(f"{x / SIZE_HW[1]:.6f} {y / SIZE_HW[0]:.6f}" for x, y in points)


@pytest.mark.parametrize(
    "mask",
    [
        drawn((3, 3, 12, 12), (30, 5, 45, 30)),
        drawn((1, 1, 8, 8), (20, 3, 30, 12), (40, 20, 50, 35)),
        drawn((1, 1, 8, 8), (40, 20, 50, 35), (5, 20, 9, 30), (20, 3, 30, 12)),
    ],
    ids=["two", "three", "four"],
)
def test_parts_joined_by_repeated_points_are_parts(mask: np.ndarray) -> None:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    line = as_others_write([contour[:, 0] for contour in contours])
    np.testing.assert_array_equal(yolo.from_lines([line], SIZE_HW).masks[0], mask)


def test_thin_parts_are_no_bridges() -> None:
    """A tail one pixel wide is walked there and back, too."""
    mask = drawn((5, 5, 20, 20), (20, 10, 40, 11))
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    np.testing.assert_array_equal(yolo.from_lines([as_others_write([contours[0][:, 0]])], SIZE_HW).masks[0], mask)
    line = "0 " + " ".join(f"{x / 53:.6f} {y / 37:.6f}" for x, y in [(4, 9), (40, 9), (4, 9)])
    np.testing.assert_array_equal(yolo.from_lines([line], SIZE_HW).masks[0], EXACT["row"] | drawn((40, 9, 41, 10)))


def test_long_walks_there_and_back_take_no_time() -> None:
    x = np.tile(np.arange(500) * 20 % 1000, 20) / 1000
    there = np.stack([x, np.linspace(0, 0.99, len(x))], axis=1)
    points = np.concatenate([there, there[::-1], [[0.5, 0.99], [0.9, 0.01]]])
    line = "0 " + " ".join(f"{value:.6f}" for value in points.ravel())
    assert len(yolo.from_lines([line], (100, 1000))) == 1

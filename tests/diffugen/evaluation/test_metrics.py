from pathlib import Path

import numpy as np
import pytest

from diffugen.datasets.folder import write_dataset
from diffugen.detector.model import load_detector, new_detector, save_detector
from diffugen.errors import UserError
from diffugen.evaluation.detector import evaluate_detector, evaluate_groups
from diffugen.evaluation.metrics import average_precision, label_quality
from diffugen.instances import Instances
from diffugen.masks.matching import mask_iou, match_instances
from diffugen.sample import Sample
from diffugen.toyworld import render
from diffugen.toyworld.scene import sample_scene
from diffugen.toyworld.scenes_dataset import labels

TOY_DETECTOR = Path(__file__).parents[3] / "diffugen/toyworld/weights/detector.safetensors"
SIZE_HW = (30, 50)
NAMES = ["piano", "car", "tent"]


def boxes(*corners: tuple[int, int, int, int], classes: list[int], scores: list[float] | None = None) -> Instances:
    masks = np.zeros((len(corners), *SIZE_HW), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, corners, strict=True):
        mask[y1:y2, x1:x2] = True
    return Instances.from_masks(masks, classes, scores)


A, HALF_A, B = (0, 0, 10, 10), (0, 0, 10, 5), (20, 10, 40, 30)


def test_iou_of_masks() -> None:
    a, b = boxes(A, B, classes=[0, 0]), boxes(HALF_A, (5, 0, 15, 10), B, classes=[0, 0, 0])
    expected = [[0.5, 1 / 3, 0], [0, 0, 1]]
    np.testing.assert_allclose(mask_iou(a.masks, b.masks), expected, atol=1e-6)
    assert mask_iou(a.masks, b.masks).dtype == np.float32


def test_iou_of_nothing() -> None:
    a, none = boxes(A, classes=[0]), Instances.empty(SIZE_HW)
    assert mask_iou(a.masks, none.masks).shape == (1, 0)
    empty = np.zeros((1, *SIZE_HW), bool)
    assert mask_iou(empty, empty).tolist() == [[0]]


def test_iou_needs_masks_of_one_size() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        mask_iou(np.zeros((1, 3, 4), bool), np.zeros((1, 4, 3), bool))


def test_matching_takes_the_best_pairs_once() -> None:
    truth = boxes(A, B, classes=[0, 1])
    pred = boxes(HALF_A, A, (20, 10, 40, 28), classes=[0, 0, 1])
    result = match_instances(pred, truth)
    assert result.pairs.tolist() == [[1, 0], [2, 1]]
    np.testing.assert_allclose(result.ious, [1, 0.9])


def test_matching_minds_the_class_unless_asked_not_to() -> None:
    truth, pred = boxes(A, classes=[0]), boxes(A, classes=[1])
    assert len(match_instances(pred, truth).pairs) == 0
    assert len(match_instances(pred, truth, same_class=False).pairs) == 1


def test_matching_without_overlap_pairs_nothing() -> None:
    result = match_instances(boxes(B, classes=[0]), boxes(A, classes=[0]), iou_threshold=0.0)
    assert result.pairs.shape == (0, 2) and result.ious.shape == (0,)


def test_label_quality_by_hand() -> None:
    truth = boxes(A, B, classes=[0, 1])
    pred = boxes((0, 0, 10, 8), (45, 0, 50, 5), classes=[0, 0])  # IoU 0.8; a false one; the car is missed
    quality = label_quality([(pred, truth), (Instances.empty(SIZE_HW), boxes(A, classes=[0]))], NAMES)
    assert quality["mean_iou"] == pytest.approx(0.8 / 3)
    assert (quality["precision"], quality["recall"]) == (pytest.approx(1 / 2), pytest.approx(1 / 3))
    assert (quality["num_pred"], quality["num_truth"]) == (2, 3)
    assert quality["classes"]["piano"]["recall"] == pytest.approx(1 / 2)
    assert quality["classes"]["car"] == {
        "mean_iou": 0,
        "precision": None,
        "recall": 0,
        "num_truth": 1,
        "num_pred": 0,
    }
    assert "tent" not in quality["classes"]


def test_label_quality_of_nothing() -> None:
    quality = label_quality([])
    assert quality["mean_iou"] is None and quality["num_truth"] == 0


def test_perfect_predictions_have_precision_one() -> None:
    truths = [boxes(A, B, classes=[0, 1]), Instances.empty(SIZE_HW)]
    table = average_precision(truths, truths, NAMES)
    for name in ("mean", "piano", "car"):
        assert list(table[name].values()) == pytest.approx([1.0] * 4)
    assert set(table["tent"].values()) == {None}  # no truth, so nothing to say; least of all the mean


def test_average_precision_by_hand() -> None:
    truths = [boxes(A, classes=[0]), boxes(A, classes=[0])]
    found = boxes((0, 0, 10, 8), classes=[0], scores=[0.9])  # IoU 0.8: right at 7 of the 10 thresholds
    table = average_precision([found, Instances.empty(SIZE_HW)], truths, NAMES[:1])
    half = 51 / 101  # recall 0.5 reached with precision 1, at COCO's 101 points
    assert table["piano"]["mask_map50"] == pytest.approx(half)
    assert table["piano"]["mask_map50_95"] == pytest.approx(0.7 * half)
    assert table["piano"]["box_map50_95"] == pytest.approx(0.7 * half)


def test_a_stronger_false_detection_costs_precision() -> None:
    truth = boxes(A, classes=[0])
    weak = boxes(A, B, classes=[0, 0], scores=[0.9, 0.3])
    strong = boxes(A, B, classes=[0, 0], scores=[0.3, 0.9])
    assert average_precision([weak], [truth], NAMES[:1])["piano"]["mask_map50"] == pytest.approx(1)
    assert average_precision([strong], [truth], NAMES[:1])["piano"]["mask_map50"] == pytest.approx(0.5)


def test_masks_and_boxes_are_measured_apart() -> None:
    ring = np.zeros((1, *SIZE_HW), bool)
    ring[0, :20, :20] = True
    truth = Instances.from_masks(ring.copy(), [0])
    ring[0, 2:18, 2:18] = False
    table = average_precision([Instances.from_masks(ring, [0])], [truth], NAMES[:1])
    assert table["piano"]["box_map50"] == pytest.approx(1) and table["piano"]["mask_map50"] == 0


def test_predictions_and_truths_are_aligned() -> None:
    with pytest.raises(ValueError, match="zip"):
        average_precision([], [Instances.empty(SIZE_HW)], NAMES)


def test_evaluating_a_detector(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (*SIZE_HW, 3), np.uint8)
    write_dataset(tmp_path / "d", [Sample.labelled("a", image, boxes(A, classes=[0]), "test")], NAMES)
    save_detector(new_detector(NAMES[:2]), tmp_path / "w.safetensors")
    table = evaluate_detector(tmp_path / "w.safetensors", tmp_path / "d", NAMES[:2], imgsz=64, device="cpu")
    assert set(table) == {"mean", "piano", "car"}
    assert table["piano"]["mask_map50"] < 0.1 and table["car"]["mask_map50"] is None  # untrained; no car in truth
    with pytest.raises(UserError, match="'dog' is not labelled"):
        evaluate_detector(tmp_path / "w.safetensors", tmp_path / "d", ["dog"], imgsz=64, device="cpu")


def test_groups_of_images_are_measured_apart(tmp_path: Path) -> None:
    names = ["house", "tree", "car", "tent"]
    scenes = [sample_scene(seed, kinds=names) for seed in range(8)]
    drawn = [render(scene, (96, 128)) for scene in scenes]
    items = [
        # by night the labels are those of another scene, so that what is found there is wrong
        Sample.labelled(str(k), drawn[k].image, labels(drawn[k if k < 4 else (k + 1) % 4], names), "test")
        for k in range(8)
    ]
    write_dataset(tmp_path / "d", items, names)
    groups = {"day": set("0123"), "night": set("4567"), "dusk": {"99"}}
    tables = evaluate_groups(TOY_DETECTOR, tmp_path / "d", names, groups, imgsz=128, device="cpu")
    assert set(tables) == {None, "day", "night"}
    day, night, all_of_them = (tables[key]["mean"]["mask_map50"] for key in ("day", "night", None))
    assert day is not None and night is not None and all_of_them is not None
    assert night < 0.5 < day and night < all_of_them < day


def test_a_detectors_own_boxes_are_measured() -> None:
    truth = boxes((10, 5, 30, 25), classes=[0])
    mask = truth.masks.copy()
    mask[0, :, 20:] = False  # half of the object, in a box around the whole of it
    found = Instances(mask, truth.xyxy, truth.class_ids, truth.scores)
    table = average_precision([found], [truth], NAMES[:1])
    assert table["piano"]["box_map50_95"] == pytest.approx(1)
    assert table["piano"]["mask_map50_95"] == pytest.approx(0.1)  # IoU 0.5: right at the first threshold only


def test_ultralytics_own_validation_agrees(tmp_path: Path) -> None:
    """Square scenes, so that both sides see the same pixels; theirs scores masks at a quarter of the size."""
    import diffugen.toyworld
    from diffugen.toyworld.scene import COMMON_KINDS
    from diffugen.toyworld.scenes_dataset import write_scenes

    weights = Path(diffugen.toyworld.__file__).parent / "weights" / "detector.safetensors"
    names = list(COMMON_KINDS)
    write_scenes(tmp_path / "scenes", 40, 41_000_000, names, split="val", progress=False)
    ours = evaluate_detector(weights, tmp_path / "scenes", names, split="val", imgsz=128, device="cpu")["mean"]
    theirs = load_detector(weights).val(
        data=str(tmp_path / "scenes" / "data.yaml"), imgsz=128, batch=8, rect=False, device="cpu", workers=0,
        plots=False, verbose=False, project=str(tmp_path / "val"),
    )  # fmt: skip
    assert ours["box_map50"] == pytest.approx(theirs.box.map50, abs=0.015)
    # theirs takes boxes from the points of the label files, which end half a pixel before the far edges
    assert ours["box_map50_95"] == pytest.approx(theirs.box.map, abs=0.03)
    assert ours["mask_map50"] == pytest.approx(theirs.seg.map50, abs=0.03)
    assert ours["mask_map50_95"] > theirs.seg.map - 0.02

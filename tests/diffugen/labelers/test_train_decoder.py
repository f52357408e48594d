"""`python -m diffugen.labelers.train_decoder`: from drawn masks to a decoder that labels other photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffugen.attention.decoder import load_decoder
from diffugen.cli.main import main as diffugen
from diffugen.datasets.folder import read_dataset, write_dataset
from diffugen.errors import UserError
from diffugen.images import write_png
from diffugen.instances import Instances
from diffugen.labelers.train_decoder import class_shares, main
from diffugen.masks.matching import mask_iou
from diffugen.sample import Sample
from diffugen.toyworld import render
from diffugen.toyworld.scene import sample_scene

PIPELINE = Path(__file__).parents[3] / "diffugen/toyworld/weights/pipeline"
KIND = "rubber-duck"


def photo(seed: int) -> tuple[np.ndarray, Instances]:
    drawn = render(sample_scene(seed, num_objects=1, required_kinds=(KIND,)))
    return drawn.image, Instances.from_masks(drawn.masks, [0] * len(drawn.masks))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    write_dataset(folder, [Sample.labelled(f"{seed}", *photo(880_000 + seed), "train") for seed in range(2)], [KIND])
    return folder


def test_two_drawn_masks_label_other_photos(drawn: Path, tmp_path: Path) -> None:
    out, photos = tmp_path / "decoder.safetensors", tmp_path / "photos"
    words = ["--model", str(PIPELINE), "--object", f"{KIND}=bench"]
    main(["--data", str(drawn), *words, "--out", str(out), "--steps", "60"])
    assert load_decoder(out, "cpu").class_names == (KIND,)
    truths = {}
    for seed in range(3):
        image, truths[f"{seed}"] = photo(885_000 + seed)
        write_png(photos / f"{seed}.png", image)
    labelled = tmp_path / "labelled"
    assert (
        diffugen(["label", str(photos), *words, "--decoder", str(out), "--outline", "none", "--out", str(labelled)])
        == 0
    )
    ious = [
        mask_iou(found.masks, truths[name].masks).max(initial=0)
        for name, _, found in read_dataset(labelled, "train", [KIND])
    ]
    assert len(ious) == 3 and np.mean(ious) > 0.6


def test_shares_of_a_grid() -> None:
    masks = np.zeros((2, 8, 8), bool)
    masks[0, :, :4] = masks[1, :4, 2:6] = True  # the second covers a part of the first
    shares = class_shares(Instances.from_masks(masks, [1, 0]), 2, (2, 2))
    np.testing.assert_allclose(shares.sum(0), 1)
    np.testing.assert_allclose(shares[:, 0, 0], [0, 0.5, 0.5])
    np.testing.assert_allclose(shares[:, 1, 1], [1, 0, 0])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--object", "piano=bench"], "class 'piano' is not one of"),
        (["--split", "test"], "--split test: .* has no such split"),
        (["--steps", "0"], "--steps is 0"),
        (["--out", "decoder.pt"], "must end in .safetensors"),
    ],
)
def test_mistakes_are_named_before_the_model_is_loaded(drawn: Path, options: list[str], sentence: str) -> None:
    usual = ["--data", str(drawn), "--model", "no/model", "--out", "decoder.safetensors"]
    if "--object" not in options:
        usual += ["--object", f"{KIND}=bench"]
    with pytest.raises(UserError, match=sentence):
        main([*usual, *options])

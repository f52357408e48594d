"""Images of two datasets are paired by path; what could be several images is none."""

import pytest

from diffugen.evaluation.pairing import same_images


@pytest.mark.parametrize(
    ("known", "wanted", "expected"),
    [
        (["a.png", "b.png"], ["b.png"], {"b.png": "b.png"}),
        (["x/a.png", "y/a.png"], ["x/a.png", "y/a.png"], {"x/a.png": "x/a.png", "y/a.png": "y/a.png"}),
        (["x/a.png", "y/a.png"], ["y/a.jpg"], {"y/a.jpg": "y/a.png"}),
        (["x/a.png", "y/a.png"], ["val/y/a.png"], {"val/y/a.png": "y/a.png"}),
        (["a.png"], ["deep/down/a.jpg"], {"deep/down/a.jpg": "a.png"}),
        (["x_a.png", "y_a.png"], ["x/a.png", "y/a.png"], {"x/a.png": "x_a.png", "y/a.png": "y_a.png"}),
        (["a_png.png", "a_jpg.jpg"], ["a.png", "a.jpg"], {"a.png": "a_png.png", "a.jpg": "a_jpg.jpg"}),
        (["a.png", "a.jpg"], ["a_png.png"], {"a_png.png": "a.png"}),
        (["x/a.png", "y/a.png"], ["a.png"], {}),
        (["a.png"], ["x/a.png", "y/a.png"], {}),
        (["a.png", "x/a.png"], ["x/a.png", "a.png"], {"a.png": "a.png", "x/a.png": "x/a.png"}),
        (["b.png"], ["a.png"], {}),
        ([], ["a.png"], {}),
        (["a.png"], [], {}),
    ],
)
def test_images_are_paired_by_path(known: list[str], wanted: list[str], expected: dict[str, str]) -> None:
    assert same_images(known, wanted) == expected

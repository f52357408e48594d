import pytest

from diffugen.class_maps import class_index, mapped_classes, parse_class_map
from diffugen.errors import UserError

MODEL = {0: "truck", 1: "van", 4: "tree", 7: "car"}


@pytest.mark.parametrize(
    ("class_names", "class_map", "expected"),
    [
        (["car"], None, {7: 0}),
        (["tree", "car"], None, {4: 0, 7: 1}),
        (["vehicle", "tree"], {"truck": "vehicle", "van": "vehicle"}, {0: 0, 1: 0, 4: 1}),
        (["car", "van"], {"van": "car"}, {1: 0, 7: 0}),  # a mapped class is gone under its own name
        (["dog"], None, {}),
    ],
)
def test_class_ids_are_mapped(
    class_names: list[str], class_map: dict[str, str] | None, expected: dict[int, int]
) -> None:
    assert class_index(MODEL, class_names, class_map) == expected


@pytest.mark.parametrize(
    ("class_map", "message"),
    [
        ({"truck": "lorry"}, "class_map: 'lorry' is none of the classes car, tree"),
        ({"ship": "car"}, "class_map: the model has no class 'ship'; it has truck, van, tree, car"),
    ],
)
def test_maps_must_fit_both_sides(class_map: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        class_index(MODEL, ["car", "tree"], class_map)


def test_maps_are_written_as_equations() -> None:
    assert parse_class_map(["truck=car", " traffic light = light"]) == {"truck": "car", "traffic light": "light"}


@pytest.mark.parametrize("entry", ["truck", "truck=", "=car"])
def test_broken_equations_are_named(entry: str) -> None:
    with pytest.raises(UserError, match=f"--map '{entry}' is not of the form"):
        parse_class_map([entry])


def test_a_model_class_becomes_one_class() -> None:
    with pytest.raises(UserError, match="gives the class 'truck' twice"):
        parse_class_map(["truck=car", "truck=bus"])


@pytest.mark.parametrize(
    ("wanted", "class_map", "expected"),
    [
        (None, {}, ["truck", "van", "tree", "car"]),
        (["car", "tree"], {}, ["car", "tree"]),
        (None, {"truck": "vehicle", "van": "vehicle", "tree": "plant"}, ["vehicle", "plant"]),
        (["car", "vehicle"], {"truck": "vehicle"}, ["car", "vehicle"]),
    ],
)
def test_the_datasets_classes(wanted: list[str] | None, class_map: dict[str, str], expected: list[str]) -> None:
    assert mapped_classes(MODEL, wanted, class_map, "w.pt") == expected


def test_a_class_that_nothing_leads_to_is_named() -> None:
    with pytest.raises(UserError, match="w.pt does not know 'truck'"):
        mapped_classes(MODEL, ["truck"], {"truck": "vehicle"}, "w.pt")

import subprocess
import sys

import pytest

from arcface_cakd.registry import Registry, UnknownNameError, did_you_mean


def test_names_are_found_and_listed():
    registry = Registry("shape")
    registry.register("square")(1)
    registry.register("circle")(2)
    assert registry.names() == ["circle", "square"]
    assert registry.get("square") == 1
    assert "circle" in registry and "triangle" not in registry


def test_an_unknown_name_gives_the_nearest_one():
    registry = Registry("shape")
    registry.register("square")(1)
    with pytest.raises(UnknownNameError, match=r"^unknown shape 'sqare'; did you mean 'square'\?$"):
        registry.get("sqare")
    with pytest.raises(UnknownNameError, match="known: square"):
        registry.get("zzz")


def test_a_name_is_taken_once():
    registry = Registry("shape")
    registry.register("square")(1)
    registry.register("square")(1)  # the same component again, as after a reload
    with pytest.raises(ValueError, match="already registered"):
        registry.register("square")(2)


def test_modules_are_imported_on_the_first_look_up(tmp_path, monkeypatch):
    (tmp_path / "shapes_of_a_test.py").write_text(
        "from registry_of_a_test import SHAPES\nSHAPES.register('late')(3)\n"
    )
    (tmp_path / "registry_of_a_test.py").write_text(
        "from arcface_cakd.registry import Registry\n"
        "SHAPES = Registry('shape', ('shapes_of_a_test',))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import registry_of_a_test

    assert "shapes_of_a_test" not in sys.modules
    assert registry_of_a_test.SHAPES.get("late") == 3


def test_an_entry_point_registers(tmp_path):
    """A third-party package, as pip would lay it out, adds a network to BACKBONES."""
    (tmp_path / "third_party.py").write_text(
        "def tiny(dropout=0.0, fp16=False, num_features=512): return None\n"
    )
    info = tmp_path / "third_party-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[arcface_cakd.backbones]\ntiny = third_party:tiny\n")
    code = "from arcface_cakd import BACKBONES; print(BACKBONES.get('tiny').__module__)"
    found = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"],
        capture_output=True,
        text=True,
    )
    assert found.stdout.strip() == "third_party", found.stderr


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("swin_x", ["swin_s", "mbf"], "did you mean 'swin_s'?"),
        ("q", ["swin_s", "mbf"], "known: mbf, swin_s"),
        ("q", [], "known: none"),
    ],
)
def test_did_you_mean(name, known, hint):
    assert did_you_mean(name, known) == hint

import pytest

from arcface_cakd.config import CakdConfig


@pytest.fixture(scope="module")
def sources():
    import sources

    return sources


CODE = '''"""What it is."""

def half(x):
    """Of a number."""
    return x / 2  # exactly
'''


def test_what_does_not_compute_does_not_count(sources):
    digest = sources.source_digest({"half.py": CODE})
    words = CODE.replace("Of a number", "Half of x").replace("# exactly", "")
    assert sources.source_digest({"half.py": words}) == digest
    assert sources.source_digest({"half.py": words.replace("\n\ndef", "\ndef")}) == digest
    assert sources.source_digest({"half.py": CODE.replace("/ 2", "/ 3")}) != digest
    assert sources.source_digest({"halves.py": CODE}) != digest
    assert sources.source_digest({"half.py": CODE, "other.py": ""}) != digest


def entry(*losses, **parts):
    parts = {"prompts": None, "urfm": None, **parts}
    teacher = {"network": "swin_mini", "weights": "random"}
    losses = [{"name": name} for name in losses]
    return CakdConfig.from_entry({"teacher": teacher, "losses": losses, **parts})


def test_a_cell_hangs_on_the_parts_that_it_uses(sources):
    plain = {"torch", "training", "network r10_mini"}
    assert set(sources.digests("r10_mini", None)) == plain
    distilled = plain | {"network swin_mini", "distillation"}
    assert set(sources.digests("r10_mini", entry("sp"))) == distilled | {"loss sp"}
    whole = entry("urfm_feature", "rkd", prompts={}, urfm={})
    assert set(sources.digests("r10_mini", whole)) == distilled | {
        "loss urfm_feature",
        "loss rkd",
        "alignment",
        "prompting",
    }


def test_a_change_shows_in_its_part_alone(sources, tmp_path, monkeypatch):
    """On a copy of the package."""
    package = sources.PACKAGE
    for path in package.rglob("*.py"):
        copy = tmp_path / path.relative_to(package)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    where = sources._file_of
    monkeypatch.setattr(sources, "_file_of", lambda c: tmp_path / where(c).relative_to(package))
    monkeypatch.setattr(sources, "PACKAGE", tmp_path)
    before = sources.digests("r10_mini", entry("sp", "rkd"))

    def changed(name):
        path = tmp_path / name
        text = path.read_text()
        path.write_text(text + "\nCHANGED = 1\n")
        after = sources.digests("r10_mini", entry("sp", "rkd"))
        path.write_text(text)
        return {part for part in before if before[part] != after[part]}

    assert changed("losses/sp_loss.py") == {"loss sp"}
    assert changed("losses/kd_loss.py") == set()
    assert changed("losses/relations.py") == {"distillation"}
    assert changed("distiller/module.py") == {"distillation"}
    assert changed("engine/loop.py") == {"training"}
    assert changed("partial_fc/margin.py") == {"training"}
    assert changed("backbones/iresnet.py") == {"network r10_mini"}
    assert changed("backbones/swin.py") == {"network swin_mini"}
    assert changed("alignment/urfm.py") == set()
    assert changed("cli/train.py") == set()

import pytest

from arcface_cakd.files import atomic_path, write_text


def test_a_file_appears_whole(tmp_path):
    target = tmp_path / "deep" / "a.txt"
    with atomic_path(target) as partial:
        partial.write_text("one")
        assert not target.exists() and partial.suffix == ".txt"
    assert target.read_text() == "one"
    assert [p.name for p in target.parent.iterdir()] == ["a.txt"]


def test_an_error_leaves_what_was_there(tmp_path):
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as partial:
        partial.write_text("half of the n")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]

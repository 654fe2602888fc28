"""Lists that users bring, as their editors write them."""

import pytest

from arcface_cakd.data import DataError
from arcface_cakd.data.text_lines import read_lines


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "\n", "\n\n"])
def test_lines_end_at_newlines_alone(tmp_path, mark, end, last):
    lines = ["Zo\u00eb\t1", "", "a\u2028b\x85c\x0cd", " x "]
    text = "\n".join(lines) + last
    (tmp_path / "list.txt").write_bytes(mark + text.replace("\n", end).encode())
    assert read_lines(tmp_path / "list.txt") == lines


@pytest.mark.parametrize("content", [b"", b"\n", b"\xef\xbb\xbf"])
def test_a_file_without_lines_has_none(tmp_path, content):
    (tmp_path / "list.txt").write_bytes(content)
    assert read_lines(tmp_path / "list.txt") == []


def test_what_is_no_text_is_said_in_a_line(tmp_path):
    (tmp_path / "list.txt").write_bytes("Zo\u00eb".encode("latin-1"))
    with pytest.raises(DataError, match=r"list\.txt: is no text in UTF-8 \(.*\): save it as that"):
        read_lines(tmp_path / "list.txt")
    with pytest.raises(DataError, match=r"no\.txt: cannot be read: No such file"):
        read_lines(tmp_path / "no.txt")

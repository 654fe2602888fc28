"""Contact sheets of what a data set may be: each cell against the image that belongs there."""

import numpy as np
from helpers.record_sets import jpeg, pixels
from PIL import Image

from arcface_cakd.cli import main
from arcface_cakd.data import write_bin


def sheet_of(path, tmp_path):
    assert main(["data", "inspect", str(path), "--contact-sheet", str(tmp_path / "s.png")]) == 0
    return np.asarray(Image.open(tmp_path / "s.png"))


def cell(sheet, row, column):
    top, left = 4 + 116 * row, 4 + 116 * column
    return sheet[top : top + 112, left : left + 112]


def test_of_records_and_of_pairs_beside_them(make_set, tmp_path, pool):
    folder = make_set("in", [n // 4 for n in range(80)])
    sheet = sheet_of(folder, tmp_path)
    assert sheet.shape == (8 * 116 + 4, 4 * 116 + 4, 3)
    people = [0, 2, 5, 8, 10, 13, 16, 19]  # of 20, evenly
    for row, person in enumerate(people):
        for column in range(4):
            expected = pixels(pool[4 * person + column])
            np.testing.assert_array_equal(cell(sheet, row, column), expected)
    write_bin(folder / "lfw.bin", pool[:40], [n % 2 == 0 for n in range(20)])
    sheet = sheet_of(folder, tmp_path)
    assert sheet.shape == (8 * 116 + 4, 10 * 116 + 4, 3)
    np.testing.assert_array_equal(cell(sheet, 4, 1), pixels(pool[1]))
    np.testing.assert_array_equal(cell(sheet, 7, 9), pixels(pool[39]))


def test_of_folders_with_an_image_of_another_size_and_one_that_is_damaged(tmp_path):
    for name, data in {"a/1": jpeg(1), "a/2": jpeg(2, (80, 40)), "b/1": b"\xff\xd8\xff"}.items():
        path = tmp_path / "crops" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    from arcface_cakd.data.contact_sheet import contact_sheet
    from arcface_cakd.preparation.overview import rows_of

    sheet = contact_sheet(rows_of(tmp_path / "crops"))
    np.testing.assert_array_equal(cell(sheet, 0, 0), pixels(jpeg(1)))
    assert (cell(sheet, 0, 1)[:27] == 255).all() and (cell(sheet, 0, 1)[30:80] != 255).any()
    assert len(np.unique(cell(sheet, 1, 0))) == 1 and cell(sheet, 1, 0)[0, 0, 0] < 255


def test_another_name_is_refused(make_set, tmp_path, capsys):
    folder = make_set("in", [0, 1])
    (tmp_path / "sheet.png").mkdir()
    for name, said in (("sheet.jpg", "must end in .png"), ("sheet.png", "a folder: name a file")):
        assert main(["data", "inspect", str(folder), "--contact-sheet", str(tmp_path / name)]) == 1
        shown = capsys.readouterr()
        assert said in shown.err and shown.out == ""  # before the set is read

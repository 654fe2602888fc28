"""Each protocol says by a digest which data it looked at."""

import shutil

import pytest
from helpers.people_faces import EMBEDDER, crop, save

from arcface_cakd.evaluation.protocols import AllPairs, TemplatePairs, TemplateSearch


def digests(protocol):
    results = protocol.judge(EMBEDDER, draws=0)
    found = protocol.data_digests()
    assert set(found) == set(results)
    return found


def test_other_pixels_or_people_are_other_data(tmp_path):
    folder = tmp_path / "own"
    for person in range(2):
        for k in range(2):
            save(folder / f"p{person}" / f"{k}.png", crop(person, k))
    first = digests(AllPairs([folder]))
    assert digests(AllPairs([folder])) == first
    save(folder / "p1/1.png", crop(1, 2))
    changed = digests(AllPairs([folder]))
    assert changed != first
    (folder / "p1/1.png").rename(folder / "p1/2.png")  # names are nothing that is judged
    assert digests(AllPairs([folder])) == changed
    (folder / "p1/2.png").rename(folder / "p0/2.png")
    assert digests(AllPairs([folder])) != changed


@pytest.mark.parametrize("protocol", [TemplatePairs, TemplateSearch])
def test_templates_count_with_their_tables(templates, tmp_path, protocol):
    first = digests(protocol([templates.folder]))
    folder = tmp_path / "other"
    shutil.copytree(templates.folder, folder)
    assert set(digests(protocol([folder])).values()) == set(first.values())
    table = folder / "meta" / "ijbc_name_5pts_score.txt"
    table.write_text(table.read_text().rstrip("\n") + "1\n")  # a digit more of the last score
    assert set(digests(protocol([folder])).values()).isdisjoint(first.values())

"""Sets of templates of one's own, as the protocols read them."""

import numpy as np
import pytest
from helpers.people_faces import EMBEDDER, crop, save
from helpers.record_sets import ends_early, jpeg

from arcface_cakd import cli
from arcface_cakd.data import DataError
from arcface_cakd.data.templates import (
    read_template_images,
    read_template_pairs,
    read_template_people,
)
from arcface_cakd.evaluation.protocols import TemplatePairs, TemplateSearch
from arcface_cakd.preparation.template_drawing import GALLERIES, draw_templates


@pytest.mark.parametrize(("seed", "impostors"), [(0, 10**6), (1, 50), (2, 1)])
def test_who_is_where_and_what_is_compared(seed, impostors):
    random = np.random.default_rng(seed)
    people = random.permutation(np.repeat(np.arange(20) * 3, random.integers(1, 9, 20)))
    drawn = draw_templates(people, impostors, seed)
    of = dict(enumerate(drawn.people.tolist(), start=1))
    count = dict(zip(*map(np.ndarray.tolist, np.unique(people, return_counts=True)), strict=True))
    assert {p for p, n in count.items() if n > 1} == set(of.values())
    for person, template in zip(people.tolist(), drawn.template.tolist(), strict=True):
        assert of.get(template) == (person if count[person] > 1 else None)
    sizes = np.bincount(drawn.template)
    one, two = (drawn.galleries[name].tolist() for name in GALLERIES)
    for template in one + two:
        assert sizes[template] == (count[of[template]] + 1) // 2
    for template in drawn.probes.tolist():
        assert sizes[template] in (1, 2)
    assert sorted(one + two + drawn.probes.tolist()) == sorted(of)
    assert len({of[t] for t in one + two}) == len(one + two) and abs(len(one) - len(two)) <= 1
    pairs = [tuple(pair) for pair in drawn.pairs.tolist()]
    assert len(set(pairs)) == len(pairs)
    for (gallery, probe), same in zip(pairs, drawn.issame.tolist(), strict=True):
        assert gallery in one + two and probe in drawn.probes
        assert (of[gallery] == of[probe]) == same
    assert sum(drawn.issame) == len(drawn.probes)
    possible = len(drawn.probes) * (len(one + two) - 1)
    assert len(pairs) - sum(drawn.issame) == min(impostors, possible)
    again = draw_templates(people, impostors, seed)
    assert (again.pairs == drawn.pairs).all() and (again.template == drawn.template).all()


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Six people: five images each, of which one's are in a video; one image of the last."""
    folder = tmp_path_factory.mktemp("people") / "crops"
    for person in range(5):
        for k in range(5):
            inner = "video/" if person == 0 and k < 3 else ""
            save(folder / f"person {person}/{inner}{k}.PNG", crop(person, k, 90))
    save(folder / "someone/1.png", crop(9, 0))
    return folder


def test_the_protocols_read_what_the_command_makes(people, tmp_path, capsys, caplog):
    out = tmp_path / "own"
    assert cli.main(["data", "templates", str(people), str(out), "--seed", "3"]) == 0
    assert "left out: 1 people of one image, or one video, alone" in caplog.text
    assert f"{out}: 25 images of 5 people in" in capsys.readouterr().out
    images = read_template_images(out)
    assert (images.name, len(images.faces)) == ("own", 25)
    whose = {
        t: p
        for ts, ps in read_template_people(images, [*GALLERIES, "1N_probe_mixed"]).values()
        for t, p in zip(ts, ps, strict=True)
    }
    originals = {crop(p, k, 90).tobytes(): (p, k) for p in range(5) for k in range(5)}
    shown = [originals[face.tobytes()] for face in images.faces[0:25]]  # to the pixel
    assert len(set(shown)) == 25
    for (person, _), template in zip(shown, images.templates.tolist(), strict=True):
        assert whose[template] == person
    video = {int(m) for (p, k), m in zip(shown, images.medias, strict=True) if p == 0 and k < 3}
    assert len(video) == 1 and len(np.unique(images.medias)) == 23
    pairs, issame = read_template_pairs(images)
    assert [whose[a] == whose[b] for a, b in pairs.tolist()] == issame.tolist()
    assert TemplatePairs([out]).judge(EMBEDDER, draws=0)["own"].people == 5
    assert TemplateSearch([out]).judge(EMBEDDER, draws=0)["own mean"].rank[5] > 0.5


def test_mistakes_are_one_line_and_nothing_is_left(people, tmp_path, capsys):
    def fails(*arguments, said):
        assert cli.main(["data", "templates", *map(str, arguments)]) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
        assert said in line

    out = tmp_path / "own"
    fails(people, tmp_path, said="is there already")
    fails(people, out, "--name", "a b", said="--name a b")
    fails(tmp_path / "none", out, said="no such folder")
    few = tmp_path / "few"
    for person in range(3):
        for k in range(2):
            save(few / f"{person}/{k}.png", crop(person, k))
    fails(few, out, said="3 people have two images: four are needed")
    for k in range(2):
        save(few / f"4/{k}.png", crop(4, k)[:100])
    fails(few, out, said="not 112 x 112")
    for k in range(2):
        (few / f"4/{k}.png").unlink()
        (few / f"4/{k}.jpg").write_bytes(ends_early(jpeg(3)) if k else jpeg(2))
    fails(few, out, said="4/1.jpg: the image does not decode")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few"]
    with pytest.raises(DataError, match="four are needed"):
        draw_templates(np.arange(9), 5, 0)

"""The page in a browser: what it shows is what ``evaluate`` takes for the similarity."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.browser import CHROMIUM, browser, served
from helpers.people_faces import crop, photograph, save
from helpers.small_networks import SmallNetwork

from arcface_cakd import cli
from arcface_cakd.data.face_files import align
from arcface_cakd.export import ExportError, WebPage, export_model, web_page
from arcface_cakd.export.web_page import RUNTIME

DIST = os.environ.get("ONNXRUNTIME_WEB")
in_a_browser = pytest.mark.skipif(
    CHROMIUM is None or not DIST,
    reason="needs Chromium, and ONNXRUNTIME_WEB to name node_modules/onnxruntime-web/dist",
)


def similarity(first, second) -> float:
    """Of two crops, uint8 (112, 112, 3), in float64, mirror images added."""

    def embedded(face):
        images = torch.from_numpy(face.astype(np.float64) / 127.5 - 1).permute(2, 0, 1)[None]
        with torch.no_grad():
            return (network(images) + network(images.flip(3))).numpy()[0]

    network = SmallNetwork().double()
    one, other = embedded(first), embedded(second)
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def filled(page: WebPage, about=None, precision="fp32") -> str:
    with page.filled() as folder:
        export_model(SmallNetwork(), folder / page.MODEL, precision)
        return page.complete(folder, about or {})


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    """The page, open in a browser, its model loaded."""
    root = tmp_path_factory.mktemp("web")
    said = filled(WebPage(root / "page", DIST), {"network": "small", "license": "<b>MIT</b>"})
    size = sum(file.stat().st_size for file in (root / "page").iterdir()) / 1e6
    assert f"{size:.1f} MB" in said and 10 < size < 20
    with served(root / "page") as address, browser(root / "profile") as page:
        page.open(address)
        page.wait("document.querySelector('#state')?.textContent.includes('Choose two faces')")
        yield page


def shown(page) -> float:
    return float(page.wait("(v => v === '-' ? null : v)(document.querySelector('output').value)"))


def chosen(page, which: int, file: Path) -> None:
    page.choose(f"section:nth-of-type({which}) input", file)


@in_a_browser
def test_two_crops_have_the_similarity_of_evaluate(tab, tmp_path):
    for a, b in ((0, 0), (0, 1), (2, 3)):
        crops = [crop(a, 0), crop(b, 1)]
        for which, face in enumerate(crops, 1):
            chosen(tab, which, save(tmp_path / f"{a}{b}{which}.png", face))
            tab.wait(
                f"document.querySelector('section:nth-of-type({which}) .hint').textContent"
                ".includes('taken as it is')"
            )
        tab.wait("document.querySelector('#state').textContent === 'Compared.'")
        assert shown(tab) == pytest.approx(similarity(*crops), abs=6e-5)
        seen = "[...document.querySelectorAll('canvas')].filter(c => c.offsetWidth).length"
        assert tab.value(seen) == 2  # each once
    assert tab.said == []


@in_a_browser
@pytest.mark.parametrize("seed", [5, 6])
def test_a_photograph_is_aligned_by_the_landmarks_that_are_clicked(tab, tmp_path, seed):
    picture, landmarks = photograph(crop(seed, 0), seed)
    other = crop(seed, 1)
    chosen(tab, 1, save(tmp_path / "picture.png", picture))
    chosen(tab, 2, save(tmp_path / "crop.png", other))
    tab.wait("document.querySelector('.hint').textContent.includes('eye on the left')")
    tab.wait("document.querySelector('section:nth-of-type(2) .hint').textContent.length")
    clicks = []
    for x, y in np.round(landmarks):
        left, top, scale = tab.value(
            "(b => [b.left, b.top, b.width / document.querySelector('.picture').width])"
            "(document.querySelector('.picture').getBoundingClientRect())"
        )
        at = np.floor(np.array([left, top]) + (np.array([x, y]) + 0.5) * scale)
        tab.click(*at)  # a pixel of the screen, which may be across several of the picture
        clicks.append((at + 0.5 - [left, top]) / scale - 0.5)
    clicks = np.array(clicks)
    expected = similarity(align(picture, clicks), other)
    # OpenCV interpolates in 1/32 of a pixel.
    assert shown(tab) == pytest.approx(expected, abs=2e-3)
    aligned = tab.value(
        "Array.from(document.querySelector('.crop').getContext('2d')"
        ".getImageData(0, 0, 112, 112).data)"
    )
    found = np.array(aligned).reshape(112, 112, 4)[..., :3]
    assert np.abs(found - align(picture, clicks)).mean() < 0.5
    # Clicking again begins anew.
    tab.click(left + scale, top + scale)
    tab.wait("document.querySelector('output').value === '-'")
    assert tab.said == []


@in_a_browser
def test_what_is_no_picture_is_said(tab, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    chosen(tab, 1, tmp_path / "notes.png")
    tab.wait("document.querySelector('.hint').textContent.includes('notes.png is no picture')")
    assert tab.value("document.querySelector('output').value") == "-"


@in_a_browser
def test_it_says_what_the_model_is_and_loads_nothing_from_elsewhere(tab):
    text = tab.value("document.querySelector('#about').innerText")
    assert "<b>MIT</b>" in text and "small" in text
    assert re.search(r"onnxruntime-web \d+\.\d+\.\d+, \(c\) Microsoft", text)
    origins = tab.value(
        "[...new Set(performance.getEntriesByType('resource')"
        ".filter(e => !e.name.startsWith('data:')).map(e => new URL(e.name).origin))]"
    )
    assert origins == [tab.value("location.origin")]
    for width in (375, 1000):
        tab.resize(width)
        assert tab.value("window.innerWidth") == width
        assert tab.value("document.documentElement.scrollWidth") <= width


@pytest.fixture
def dist(tmp_path):
    """A folder with files of the runtime's names."""
    folder = tmp_path / "onnxruntime-web" / "dist"
    folder.mkdir(parents=True)
    for name in RUNTIME:
        (folder / name).write_bytes(name.encode())
    return folder


def test_the_command_fills_a_folder(weights, dist, tmp_path, capsys):
    page = tmp_path / "page"
    command = ["export", str(weights), "--network", "r10_narrow", "--web", str(page)]
    # The package's own folder does too.
    assert cli.main([*command, "--onnxruntime-web", str(dist.parent)]) == 0
    printed = capsys.readouterr().out
    assert "cosine at least" in printed
    assert f"python3 -m http.server --directory {page}" in printed
    assert sorted(file.name for file in page.iterdir()) == sorted(
        [
            *RUNTIME,
            *("index.html", "compare.mjs", "about.json"),
            *(f"recognition.onnx{e}" for e in ("", ".md")),
        ]
    )
    for name in RUNTIME:
        assert (page / name).read_bytes() == name.encode()
    for words, said in (
        ([*command, "--onnxruntime-web", str(dist)], "is there and is no empty folder"),
        ([*command[:-1], str(tmp_path / "new")], "npm install onnxruntime-web, and give"),
    ):
        assert cli.main(words) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
    assert not (tmp_path / "new").exists()


def test_the_current_folder_is_not_replaced(weights, dist, tmp_path, monkeypatch, capsys):
    (tmp_path / "my page").mkdir()
    monkeypatch.chdir(tmp_path / "my page")
    command = ["export", str(weights), "--network", "r10_narrow", "--web"]
    runtime = ["--onnxruntime-web", str(dist)]
    detector = ["--detector", str(dist / RUNTIME[0])]
    for folder in (".", str(tmp_path / "my page")):
        pack = [*command[:-1], "--insightface-pack", folder]
        for words in ([*command, folder, *runtime], [*pack, *detector]):
            assert cli.main(words) == 1
            (line,) = capsys.readouterr().err.splitlines()
            new = Path(folder) / "new"
            assert (
                f"is the current folder, which would be replaced: name a new one in it, as {new}"
                in line
            )
    assert not list(Path.cwd().iterdir())
    # What is advised works; and what is printed can be pasted.
    assert cli.main([*command, str(tmp_path / "my page" / "new"), *runtime]) == 0
    assert f"--directory '{tmp_path}/my page/new'\n" in capsys.readouterr().out


def test_a_page_that_is_too_large_is_refused(dist, tmp_path, monkeypatch):
    monkeypatch.setattr(web_page, "MOST_MEGABYTES", 0.1)
    (dist / RUNTIME[2]).write_bytes(bytes(200_000))
    with pytest.raises(ExportError, match=r"would have 0 MB.*smaller network"):
        filled(WebPage(tmp_path / "page", dist))
    assert not (tmp_path / "page").exists()

"""A small host, two small patch sets for it, and what the tests of patching share."""

from pathlib import Path

import pytest

from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.patching import PatchError, check, patch

TRAIN = """\
import os

def main(cfg):
    model = build(cfg)
    for epoch in range(2):
        if cfg.fp16:
            step(model)
            clip(model)
        else:
            with cfg.scope:
                clip(model)
    save(model)
"""
HOST = {
    "train_v2.py": TRAIN.encode(),
    "dataset.py": b"import numbers\r\nclass Set:\r\n    def label(self, x):\r\n"
    b"        return long(x)\r\n",
    "partial_fc_v2.py": b"class PartialFC:\n\tscale = 1\n\tend = 2",  # tabs, no last newline
    "backbones/__init__.py": b"# caf\xe9 \xff\ndef get_model(name):\n    raise ValueError()\n",
    "configs/base.py": b"config = {}\n",
    "utils/other.py": b"other = 1\n",
    "requirement.txt": b"easydict\nsklearn\nnumpy",
    "docs/readme.md": b"import os\n",
}

PATCHED_TRAIN = """\
import os
# >>> arcface-cakd cakd 1 import 5614f749
from utils import utils_cakd as cakd
# <<< arcface-cakd

def main(cfg):
    model = build(cfg)
    # >>> arcface-cakd cakd 1 loop 032babbe
    first = True
    # <<< arcface-cakd
    for epoch in range(2):
        if cfg.fp16:
            step(model)
            # >>> arcface-cakd cakd 1 clip af333f10
            # ---             clip(model)
            cakd.clip(model)
            # <<< arcface-cakd
        else:
            with cfg.scope:
                # >>> arcface-cakd cakd 1 clip 1a8df936
                # ---                 clip(model)
                cakd.clip(model)
                # <<< arcface-cakd
    # >>> arcface-cakd cakd 1 save 984f67c5
    if cfg.cakd:

        model = cakd.student(model)
    # <<< arcface-cakd
    # >>> arcface-cakd current-stack 1 before-saving a5830dd8
    flush()
    # <<< arcface-cakd
    save(model)
"""
PATCHED = {
    **HOST,
    "train_v2.py": PATCHED_TRAIN.encode(),
    "dataset.py": b"import numbers\r\nclass Set:\r\n    def label(self, x):\r\n"
    b"        # >>> arcface-cakd current-stack 1 label 02146ead\r\n"
    b"        # ---         return long(x)\r\n"
    b"        return int(x)\r\n"
    b"        # <<< arcface-cakd\r\n",
    "partial_fc_v2.py": b"class PartialFC:\n\tscale = 1\n\tend = 2\n"
    b"\t# >>> arcface-cakd current-stack 1 tail 6c7c6b1e\n\tmore = 3\n\t# <<< arcface-cakd",
    "backbones/__init__.py": b"# caf\xe9 \xff\ndef get_model(name):\n"
    b"    # >>> arcface-cakd cakd 1 networks 0aadefcd\n    return cakd_model(name)\n"
    b"    # <<< arcface-cakd\n    raise ValueError()\n",
    "requirement.txt": b"easydict\n# >>> arcface-cakd current-stack 1 sklearn c18876cb\n"
    b"# --- sklearn\n# <<< arcface-cakd\nnumpy",
    "utils/utils_cakd.py": b"# >>> arcface-cakd cakd 1 file 0f72b6df\ndef clip(model):\n    pass\n",
    "configs/one.py": b"# >>> arcface-cakd recipe 1 one 04d1e51a\nconfig = 1\n",
    "configs/two.py": b"# >>> arcface-cakd recipe 1 two f1600666\nconfig = 2\n",
}

CAKD = """\
name = "cakd"
version = 1
purpose = "the hooks"

[[add]]
path = "utils/utils_cakd.py"
source = "seam.py"
reason = "one import"

[[edit]]
id = "import"
file = "train_v2.py"
reason = "the hooks"
anchor = '''
import os
'''
after = '''
from utils import utils_cakd as cakd
'''

[[edit]]
id = "clip"
file = "train_v2.py"
reason = "ours have their own budget"
anchor = "clip(model)"
count = 2
change = ["clip(", "cakd.clip("]

[[edit]]
id = "save"
file = "train_v2.py"
reason = "only the student is saved"
anchor = '''
    save(model)
'''
before = '''
    if cfg.cakd:

        model = cakd.student(model)
'''

[[edit]]
id = "loop"
file = "train_v2.py"
reason = "what is inserted stands left of its anchor"
anchor = '''
    for epoch in range(2):
        if cfg.fp16:
'''
before = '''
    first = True
'''

[[edit]]
id = "networks"
file = "backbones/__init__.py"
reason = "names that the host does not know"
anchor = '''
    raise ValueError()
'''
before = '''
    return cakd_model(name)
'''
"""
STACK = """\
name = "current-stack"
version = 1
purpose = "current versions"

[[edit]]
id = "label"
file = "dataset.py"
reason = "labels may be arrays"
anchor = "        return long(x)"
change = ["long(x)", "int(x)"]

[[edit]]
id = "tail"
file = "partial_fc_v2.py"
reason = "the last line of a file"
anchor = "\\tend = 2"
after = "\\tmore = 3"

[[edit]]
id = "sklearn"
file = "requirement.txt"
reason = "is scikit-learn"
anchor = "sklearn"
change = ["sklearn", ""]

[[edit]]
id = "before-saving"
file = "train_v2.py"
reason = "two sets at one place"
anchor = "    save(model)"
before = "    flush()"
"""
SEAM = "def clip(model):\n    pass\n"

RECIPES = {"one": "config = 1\n", "two": "config = 2\n", "three": "config = 3\n"}


class Sets:
    """The patch sets that the command finds; they can be changed as a release would."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        self.write("cakd", CAKD)
        self.write("current-stack", STACK)
        (folder / "seam.py").write_text(SEAM)

    def write(self, name, text):
        (self.folder / f"{name}.toml").write_text(text)

    def read(self, name):
        return (self.folder / f"{name}.toml").read_text()

    def change(self, name, *replacements):
        """Replace pieces of a set's text, each of which must be there once."""
        text = self.read(name)
        for old, new in replacements:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        self.write(name, text)

    def upgrade(self, name, *replacements):
        self.change(name, ("version = 1", "version = 2"), *replacements)


def make_sets(folder, monkeypatch) -> Sets:
    monkeypatch.setattr("arcface_cakd.patching.edits.resource_dir", lambda kind: folder)
    return Sets(folder)


def make_recipes(monkeypatch) -> dict[str, str]:
    texts = dict(RECIPES)

    def render(name):
        if Path(name).is_file():
            return Path(name).read_text()
        if name not in texts:
            raise ArcfaceCakdError(f"config {name}: no such file")
        return texts[name]

    monkeypatch.setattr("arcface_cakd.patching.recipes.HOST_RECIPES", ("one", "two"))
    monkeypatch.setattr("arcface_cakd.patching.recipes.render", render)
    return texts


def make_host(root: Path, files=HOST) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def snapshot(root: Path) -> dict[str, tuple]:
    """Bytes, time of the last change and identity of every file: equal if nothing was written."""
    return {
        name: (content, (root / name).stat().st_mtime_ns, (root / name).stat().st_ino)
        for name, content in contents(root).items()
    }


def replace(path: Path, old: str, new: str) -> None:
    """Replace what must be there once, as a user's editor would."""
    text = path.read_bytes()
    assert text.count(old.encode()) == 1, old
    path.write_bytes(text.replace(old.encode(), new.encode()))


def take_block(path: Path, id: str) -> str:
    """Delete the first block of an edit, marker lines included; what it was."""
    lines = path.read_text().split("\n")
    first = next(i for i, line in enumerate(lines) if f" {id} " in line and "# >>>" in line)
    last = next(i for i in range(first, len(lines)) if "# <<<" in lines[i])
    path.write_text("\n".join(lines[:first] + lines[last + 1 :]))
    return "\n".join(lines[first : last + 1])


def states(host, only=None):
    return [found.state for found in check(host, only).examined]


def lacks(host, only=None):
    return [lack for found in check(host, only).examined for lack in found.lacks]


def printed(host, only=None):
    """The blocks to add by hand, as a check prints them."""
    return ["\n".join(lack.block) for lack in lacks(host, only)]


def paste(host, old, new):
    """Put lines in the place of others, in the one file of the host that has them."""
    (path,) = (path for path in host.rglob("*.py") if old.encode() in path.read_bytes())
    replace(path, old, new)


def refused(host, said, action=patch):
    """The action names what is in its way, in one line, and writes nothing."""
    before = snapshot(host)
    with pytest.raises(PatchError) as error:
        action(host)
    assert snapshot(host) == before
    assert "\n" not in str(error.value) and "nothing was changed" in str(error.value)
    for piece in said:
        assert piece in str(error.value)


@pytest.fixture
def sets(tmp_path, monkeypatch):
    return make_sets(tmp_path / "patches", monkeypatch)


@pytest.fixture
def recipes(monkeypatch):
    return make_recipes(monkeypatch)


@pytest.fixture
def host(tmp_path, sets, recipes):
    return make_host(tmp_path / "arcface_torch")

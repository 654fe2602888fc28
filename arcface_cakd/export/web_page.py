"""A folder with a page that compares two faces in the browser, by onnxruntime-web."""

import json
import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

from arcface_cakd.export.bundle import Bundle
from arcface_cakd.export.errors import ExportError

# Its build for the processor alone, which every browser runs; those for graphics have twice the
# size.
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
MOST_MEGABYTES = 100
_PAGE = Path(__file__).with_name("web")


class WebPage(Bundle):
    """``index.html``, the student and onnxruntime-web, for any server of files.

    Args:
        folder: where to, see ``Bundle``.
        runtime: the folder ``dist`` of npm's package onnxruntime-web, or the package's.

    Raises:
        ExportError: something is at ``folder``, or the runtime is not at ``runtime``.
    """

    def __init__(self, folder: str | os.PathLike, runtime: str | os.PathLike):
        super().__init__(folder)
        self._runtime = _runtime_files(Path(runtime))

    def complete(self, filled: Path, about: Mapping[str, str]) -> str:
        """Add page and runtime; refused above ``MOST_MEGABYTES``. See ``Bundle``."""
        for file in (*self._runtime, *_PAGE.iterdir()):
            shutil.copyfile(file, filled / file.name)
        said = {"about": dict(about), "onnxruntime_web": _version(self._runtime[0].parent)}
        (filled / "about.json").write_text(json.dumps(said, indent=2), encoding="utf-8")
        size = sum(file.stat().st_size for file in filled.iterdir()) / 1e6
        if size > MOST_MEGABYTES:
            raise ExportError(
                f"the page would have {size:.0f} MB, too many for a browser to load (at most "
                f"{MOST_MEGABYTES}): --precision fp16, or a smaller network"
            )
        look = shlex.join(["python3", "-m", "http.server", "--directory", str(self.folder)])
        return f"{self.folder}: {size:.1f} MB; to look at it: {look}"


def _runtime_files(place: Path) -> list[Path]:
    for folder in (place, place / "dist"):
        found = [folder / name for name in RUNTIME]
        if all(file.is_file() for file in found):
            return found
    raise ExportError(
        f"onnxruntime-web is not in {place} (no {RUNTIME[0]}): npm install onnxruntime-web, and "
        "give --onnxruntime-web node_modules/onnxruntime-web/dist"
    )


def _version(dist: Path) -> str | None:
    """What npm's package says of itself."""
    try:
        said = json.loads((dist.parent / "package.json").read_text(encoding="utf-8"))
        return str(said["version"]) if said["name"] == "onnxruntime-web" else None
    except (OSError, ValueError, LookupError, TypeError):
        return None

"""What of the package a cell's figures hang on, as digests: cells of other sources do not compare.

A cell has one digest for each part that it uses, so that a new loss spoils no cell of another.
Docstrings, comments and layout are left out: they train nothing.
"""

import ast
import hashlib
import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

import arcface_cakd
from arcface_cakd.config import CakdConfig
from arcface_cakd.registry import BACKBONES, LOSSES

PACKAGE = Path(arcface_cakd.__file__).parent

# Patterns below the package. The architectures of student and teacher, and each loss, are parts
# of their own.
TRAINING = (
    "backbones/base.py",
    "backbones/factory.py",
    "backbones/heads.py",
    "backbones/prelu.py",
    "backbones/weights/*.py",
    "config/*.py",
    "data/*.py",
    "engine/*.py",
    "evaluation/embedding.py",
    "partial_fc/*.py",
    "recordio/*.py",
    "distributed.py",
    "features.py",
    "landmarks.py",
    "precision.py",
)
DISTILLATION = ("backbones/teacher.py", "distiller/*.py", "losses/*.py")
ALIGNMENT = ("alignment/*.py",)
PROMPTING = ("prompting/*.py",)
CACHE = ("teacher_cache/*.py",)


def digests(network: str, cakd: CakdConfig | None) -> dict[str, str]:
    """The digest of each part that a run hangs on, and the version of torch.

    Args:
        network: the student's name, or the network's that is looked at as it is.
        cakd: the run's entry.
    """
    parts = {
        "torch": torch.__version__,
        "training": _of_patterns(TRAINING),
        f"network {network}": _of_files(PACKAGE, [_file_of(BACKBONES.get(network))]),
    }
    if cakd is not None:
        teacher = cakd.teacher["network"]
        parts[f"network {teacher}"] = _of_files(PACKAGE, [_file_of(BACKBONES.get(teacher))])
        parts["distillation"] = _of_patterns(DISTILLATION, leaving_out="_loss.py")
        for entry in cakd.losses:
            file = _file_of(LOSSES.get(entry.name))
            parts[f"loss {entry.name}"] = _of_files(PACKAGE, [file])
        if cakd.teacher["cache"] is not None:
            parts["teacher cache"] = _of_patterns(CACHE)
        if cakd.urfm is not None:
            parts["alignment"] = _of_patterns(ALIGNMENT)
        if cakd.prompts is not None or cakd.preservation is not None:
            parts["prompting"] = _of_patterns(PROMPTING)
    return parts


def source_digest(texts: Mapping[str, str]) -> str:
    """SHA-256, its first 16 digits, of Python sources by name, without what does not compute."""
    found = hashlib.sha256()
    for name, text in sorted(texts.items()):
        tree = ast.parse(text)
        for node in ast.walk(tree):
            body: Any = getattr(node, "body", None)
            if isinstance(body, list) and body and _is_text(body[0]):
                body[0].value.value = ""
        found.update(f"{name}\n{ast.unparse(tree)}\n".encode())
    return found.hexdigest()[:16]


def _of_patterns(patterns: Iterable[str], leaving_out: str = "\0") -> str:
    files = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    return _of_files(PACKAGE, (path for path in files if not path.name.endswith(leaving_out)))


def _of_files(root: Path, files: Iterable[Path]) -> str:
    texts = {}
    for path in files:
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        texts[name] = path.read_text(encoding="utf-8")
    return source_digest(texts)


def _file_of(component: Any) -> Path:
    """Where a registered class or function is defined; of a ``functools.partial`` its function."""
    return Path(inspect.getfile(inspect.unwrap(getattr(component, "func", component))))


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )

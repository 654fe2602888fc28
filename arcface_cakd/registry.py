"""Names that configs use, and what they stand for."""

import difflib
import importlib
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Any, TypeVar

from arcface_cakd.errors import ArcfaceCakdError

T = TypeVar("T")


class UnknownNameError(ArcfaceCakdError, LookupError):
    """A name that nothing is registered under; the message gives the nearest known one."""

    __str__ = Exception.__str__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint that names the nearest of ``known``, or lists them where none is near."""
    known = sorted(known)
    near = nearest(name, known)
    if near is not None:
        return f"did you mean {near!r}?"
    return "known: " + (", ".join(known) if known else "none")


def nearest(name: str, known: Iterable[str], similarity: float = 0.5) -> str | None:
    """The nearest of ``known``, or None where none is as similar, from 0 to 1, as that."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=similarity)), None)


class Registry:
    """A table from name to component that fills itself on the first look-up.

    Args:
        kind: what the names stand for, as messages should say it ("network", "loss").
        modules: modules that register components when they are imported.
        group: entry point group through which installed packages register theirs.

    Example::

        @LOSSES.register("my_loss")
        class MyLoss(DistillationLoss): ...
    """

    def __init__(self, kind: str, modules: Iterable[str] = (), group: str | None = None):
        self.kind = kind
        self._modules = tuple(modules)
        self._group = group
        self._components: dict[str, Any] = {}
        self._filled = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that registers under ``name``.

        Raises:
            ValueError: another component already has that name.
        """

        def add(component: T) -> T:
            present = self._components.get(name)
            if present is not None and present is not component:
                raise ValueError(f"{self.kind} {name!r} is already registered, as {present!r}")
            self._components[name] = component
            return component

        return add

    def get(self, name: str) -> Any:
        """The component of that name.

        Raises:
            UnknownNameError: there is none; the message names the nearest known one.
        """
        self._fill()
        if name not in self._components:
            hint = did_you_mean(str(name), self._components)
            if nearest(str(name), self._components) is None:
                hint += (
                    f"; a {self.kind} of your own is known once the module that registers it is "
                    "imported, on the command line by --import"
                )
            raise UnknownNameError(f"unknown {self.kind} {name!r}; {hint}")
        return self._components[name]

    def names(self) -> list[str]:
        """All known names, sorted."""
        self._fill()
        return sorted(self._components)

    def __contains__(self, name: str) -> bool:
        self._fill()
        return name in self._components

    def _fill(self) -> None:
        if self._filled:
            return
        self._filled = True  # before the imports: a registering module may look a name up
        try:
            for module in self._modules:
                importlib.import_module(module)
            if self._group:
                for point in metadata.entry_points(group=self._group):
                    # A point names a module that registers, or the component itself.
                    loaded = point.load()
                    if callable(loaded) and loaded not in self._components.values():
                        self.register(point.name)(loaded)
        except BaseException:
            self._filled = False
            raise


BACKBONES = Registry("network", ("arcface_cakd.backbones",), "arcface_cakd.backbones")
LOSSES = Registry("loss", ("arcface_cakd.losses",), "arcface_cakd.losses")
PROTOCOLS = Registry("protocol", ("arcface_cakd.evaluation.protocols",), "arcface_cakd.protocols")
# The parts of a config and of its `cakd` entry, and other groups of settings. A part's settings are
# the keyword-only parameters of what is registered here, so that each setting is declared once,
# where it is used.
SECTIONS = Registry(
    "section of a config",
    (
        "arcface_cakd.data.augmentation",
        "arcface_cakd.partial_fc",
        "arcface_cakd.backbones",
        "arcface_cakd.prompting",
        "arcface_cakd.alignment",
        "arcface_cakd.losses",
    ),
)

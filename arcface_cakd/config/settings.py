"""Settings, declared once: the keyword-only parameters of the component that uses them.

A component writes its settings as keyword-only parameters with a type and a default::

    def __init__(self, dims, *, num_centers: Annotated[int, Range(1)] = 49,
                 position: Literal["query", "query_key"] = "query_key"): ...

and ``check_settings`` holds what a user wrote against that signature. What stands before the
``*`` is context that the caller supplies, and no business of the user's.
"""

import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, TypeGuard, TypeVar, Union

from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.registry import SECTIONS, did_you_mean

T = TypeVar("T")


class ConfigError(ArcfaceCakdError, ValueError):
    """A config that cannot be used; the message names the key."""


@dataclasses.dataclass(frozen=True)
class Range:
    """The values that a number may take, as in ``Annotated[float, Range(0.0, 1.0)]``.

    Attributes:
        low: smallest allowed value.
        high: largest allowed value.
        above: values must be strictly greater than this.
    """

    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and value > self.above

    def __str__(self) -> str:
        parts = []
        if self.above > -math.inf:
            parts.append(f"above {self.above:g}")
        if self.low > -math.inf:
            parts.append(f"at least {self.low:g}")
        if self.high < math.inf:
            parts.append(f"at most {self.high:g}")
        return " and ".join(parts)


@dataclasses.dataclass(frozen=True)
class Section:
    """Marks an edict of settings of what is registered in ``SECTIONS`` under ``name``, as in
    ``Annotated[dict, Section("urfm")]``: declared there, once, and checked against it.
    """

    name: str


def settings_of(component: Callable) -> dict[str, inspect.Parameter]:
    """The settings of a component, by name: its keyword-only parameters.

    A dataclass declares its settings as fields.
    """
    if dataclasses.is_dataclass(component):
        return dict(inspect.signature(component).parameters)
    return {
        name: parameter
        for name, parameter in inspect.signature(component).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def check_settings(
    component: Callable, given: Mapping | None, where: str, beside: Iterable[str] = ()
) -> dict[str, Any]:
    """Complete ``given`` with the component's defaults, after checking it.

    Args:
        component: a class or function whose keyword-only parameters are the settings.
        given: what the user wrote; None counts as nothing.
        where: the place of ``given`` in the config, such as ``"cakd.urfm"``.
        beside: keys that stand in the same place and are not the component's, for messages.

    Returns:
        every setting by name, ready for ``component(..., **settings)``.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a missing one, a value of
            another type or out of range.
    """
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where} must be an edict of settings, got {given!r}")
    declared = settings_of(component)
    for key in given:
        if key not in declared:
            hint = did_you_mean(str(key), {*declared, *beside})
            if key in inspect.signature(component).parameters:
                hint = f"settings are keyword-only parameters, behind a *, and it is none; {hint}"
            raise ConfigError(f"{where} has no setting {key!r}; {hint}")
    hints = _annotations(component, given, where)
    checked = {}
    for name, parameter in declared.items():
        if name in given:
            checked[name] = _check_value(given[name], hints[name], f"{where}.{name}")
        elif parameter.default is not inspect.Parameter.empty:
            checked[name] = parameter.default
        else:
            key = f"{key_of(where)}.{name}"
            raise ConfigError(f"{where} lacks {name!r}, which has no default: set {key}")
    return checked


def key_of(where: str) -> str:
    """The key alone of what messages call a place, ``FILE: config.cakd``."""
    return where.rpartition(": ")[2]


def _annotations(component: Callable, names: Iterable[str], where: str) -> dict[str, Any]:
    """The types of the parameters of these names, evaluated where they are strings.

    Not typing.get_type_hints: on Python 3.10 "= None" puts a union around the annotation. And not
    of other parameters: what is imported for type checkers alone is not there.
    """
    owner = component.__init__ if inspect.isclass(component) else component
    written = inspect.get_annotations(owner)
    known = getattr(inspect.unwrap(owner), "__globals__", {})
    hints = {}
    for name in names:
        hints[name] = written.get(name, Any)
        if isinstance(hints[name], str):
            try:
                hints[name] = eval(hints[name], known)
            except (NameError, AttributeError) as error:
                raise ConfigError(
                    f"{where}.{name} is declared as {hints[name]!r}, and {error}: import it in "
                    f"{component.__module__} also where TYPE_CHECKING is false"
                ) from error
    return hints


def _check_value(value: Any, annotation: Any, where: str) -> Any:
    section, bounds = _marker(annotation, Section), _marker(annotation, Range)
    if section is not None:
        return check_settings(SECTIONS.get(section.name), value, where)
    if typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    for candidate in _alternatives(annotation):
        if _marker(candidate, Section) is not None and value is None:
            continue  # it may be switched off: None is another alternative
        if typing.get_origin(candidate) is Annotated:  # Annotated inside a union
            try:
                return _check_value(value, candidate, where)
            except ConfigError:
                if _marker(candidate, Section) or _fits(value, typing.get_args(candidate)[0])[0]:
                    raise  # the right type, and what is wrong with it is what to say
                continue
        if hasattr(candidate, "from_entry") and value is not None:  # a type that reads itself
            return candidate.from_entry(value, where)
        if _is_dataclass(candidate) and isinstance(value, Mapping):
            return candidate(**check_settings(candidate, value, where))
        entry = _entry_type(candidate)
        if entry is not None and isinstance(value, list | tuple):
            return tuple(entry.from_entry(v, f"{where}[{i}]") for i, v in enumerate(value))
        fits, converted = _fits(value, candidate)
        if fits:
            numbers = converted if isinstance(converted, tuple) else (converted,)
            if bounds and any(n not in bounds for n in numbers if isinstance(n, (int, float))):
                raise ConfigError(f"{where} must be {bounds}, got {value!r}")
            return converted
    raise ConfigError(f"{where} must be {_describe(annotation)}, got {value!r}")


def _marker(annotation: Any, kind: type[T]) -> T | None:
    """What of that kind an ``Annotated`` annotation carries, if it is one."""
    if typing.get_origin(annotation) is not Annotated:
        return None
    return next((m for m in typing.get_args(annotation)[1:] if isinstance(m, kind)), None)


def _is_dataclass(annotation: Any) -> TypeGuard[type]:
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation)


def _entry_type(annotation: Any) -> Any:
    """E of a ``tuple[E, ...]`` whose members read themselves by ``from_entry``; else None."""
    inner = typing.get_args(annotation) if typing.get_origin(annotation) is tuple else ()
    return inner[0] if inner and hasattr(inner[0], "from_entry") else None


def _alternatives(annotation: Any) -> tuple:
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _fits(value: Any, annotation: Any) -> tuple[bool, Any]:
    """Whether ``value`` is of that type, and the value converted to it."""
    origin = typing.get_origin(annotation)
    if annotation is Any:
        return True, value
    if annotation in (None, type(None)):
        return value is None, value
    if origin is Literal:
        known = typing.get_args(annotation)
        return any(value == k and type(value) is type(k) for k in known), value
    if annotation is float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and math.isfinite(value), float(value) if is_number else value
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    if annotation is tuple or origin is tuple:
        if not isinstance(value, (list, tuple)):
            return False, value
        items = [i for i in typing.get_args(annotation) if i is not Ellipsis]
        if len(items) > 1 and len(items) != len(value):
            return False, value
        if not items:
            return True, tuple(value)
        kinds = items if len(items) > 1 else items * len(value)
        checked = [_fits(v, kind) for v, kind in zip(value, kinds, strict=True)]
        return all(fits for fits, _ in checked), tuple(v for _, v in checked)
    if origin is not None:
        return isinstance(value, origin), value
    return isinstance(value, annotation), value


def _describe(annotation: Any) -> str:
    names = []
    for candidate in _alternatives(annotation):
        if typing.get_origin(candidate) is Annotated:
            candidate = typing.get_args(candidate)[0]
        if typing.get_origin(candidate) is Literal:
            names += [repr(choice) for choice in typing.get_args(candidate)]
        elif candidate in (None, type(None)):
            names.append("None")
        elif candidate is tuple or typing.get_origin(candidate) is tuple:
            names.append(_describe_list(typing.get_args(candidate)))
        elif _is_dataclass(candidate):
            # A loss's own settings stand in its entry, and not in one called so.
            known = [name for name in settings_of(candidate) if name != "settings"]
            names.append("edict(" + ", ".join(known) + ")")
        else:
            names.append(getattr(candidate, "__name__", str(candidate)))
    return " or ".join(names)


def _describe_list(items: tuple) -> str:
    """What a user should write where a tuple is declared."""
    if not items:
        return "list"
    number = "" if Ellipsis in items else f"{len(items)} "
    return f"list of {number}{_describe(items[0])}"

"""Checks of options that several classes take: types, ranges, choices, misspelt names."""
import difflib
import functools
import inspect
import operator
from typing import Any, Callable, Iterable, NoReturn, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
_KNOWN = "known_options"  # of what `suggests` decorates: its options


def integer(name: str, value: Any, least: int, most: int = 2**63 - 1) -> int:
    """`value` as an int, numpy's integers included. Raises ValueError unless it is one from `least` to `most`.

    >>> integer("num_workers", 2.5, 0)
    Traceback (most recent call last):
    ValueError: num_workers must be a non-negative integer, not 2.5
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if not least <= number <= most:
        wanted = "a non-negative integer" if least == 0 else f"an integer of at least {least}"
        wanted += f", {most:,} at most" * (number > most)
        raise ValueError(f"{name} must be {wanted}, not {value!r}")
    return number


def one_of(name: str, value: Any, known: Iterable[str]) -> None:
    """Raises ValueError unless `value` is one of those known.

    >>> one_of("order", "random", ("local", "block", "sequential"))
    Traceback (most recent call last):
    ValueError: order must be 'local', 'block' or 'sequential', not 'random'
    """
    words = list(known)
    if not isinstance(value, str) or value not in words:
        *first, last = map(repr, words)
        raise ValueError(f"{name} must be {', '.join(first)}{' or ' * bool(first)}{last}, not {value!r}")


def suggests(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates a function, or an __init__ at the end of a chain of them, so that an option which it does not know is a
    TypeError that names the nearest one that it does, or all of them, and the class whose object is made.

    >>> @suggests
    ... def dump(path, *, num_workers=None):
    ...     pass
    >>> dump("train", num_worker=8)
    Traceback (most recent call last):
    TypeError: dump got an unexpected option 'num_worker'; did you mean num_workers?
    """
    known = _options(function)

    @functools.wraps(function)
    def checked(*args: P.args, **options: P.kwargs) -> R:
        for name in options:
            if name not in known:
                _refuse(name, type(args[0]) if function.__name__ == "__init__" else function)
        return function(*args, **options)

    setattr(checked, _KNOWN, known)
    return checked


def suggests_options(cls: type[R]) -> type[R]:
    """Decorates a class whose __init__ is not written out, as that of a dataclass, so that `suggests` holds for it."""
    setattr(cls, "__init__", suggests(vars(cls)["__init__"]))  # noqa: B010
    return cls


def _options(function: Callable[..., Any]) -> list[str]:
    """The names by which a caller may give something."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [name for name, option in inspect.signature(function).parameters.items()
            if option.kind in named and name != "self"]


def _refuse(name: str, called: Callable[..., Any]) -> NoReturn:
    functions = [vars(cls).get("__init__", object) for cls in called.__mro__] if isinstance(called, type) else [called]
    known = list(dict.fromkeys(option for function in functions for option in _options(function)))
    near = difflib.get_close_matches(name, known, 1)
    raise TypeError(f"{called.__name__} got an unexpected option {name!r}; "
                    + (f"did you mean {near[0]}?" if near else f"its options are {', '.join(known)}"))


class fixed_property(functools.cached_property[R]):
    """A cached_property that refuses an assignment, which would otherwise take its place and change nothing else."""

    def __set__(self, owner: object, value: object) -> NoReturn:
        raise AttributeError(f"{self.attrname} of {type(owner).__name__} is read from the file, and cannot be set")


class OptionsOnce:
    """Refuses an assignment to an option of an __init__ that `suggests` decorates, which would change nothing: it is
    taken once. Properties that can be set are set, and so are those of `settable`.

    A derived class with an __init__ of its own may keep its options as it likes.

    >>> class Loader(OptionsOnce):
    ...     @suggests
    ...     def __init__(self, seed):
    ...         self._seed = seed
    >>> Loader(1).seed = 2
    Traceback (most recent call last):
    AttributeError: seed of Loader is an option, taken when a Loader is made: make another one with seed=
    """

    settable: tuple[str, ...] = ()

    def __setattr__(self, name: str, value: object) -> None:
        cls = type(self)
        if (name in getattr(cls.__init__, _KNOWN, ()) and name not in self.settable
                and getattr(getattr(cls, name, None), "fset", None) is None):
            raise AttributeError(f"{name} of {cls.__name__} is an option, taken when a {cls.__name__} is made: make "
                                 f"another one with {name}=")
        super().__setattr__(name, value)

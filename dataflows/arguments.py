"""Command-line parsing whose errors suggest the option, command or choice that was probably meant."""
import argparse
import difflib
import itertools
import re
import sys
from typing import Any, Callable, Iterable, NoReturn, Sequence

from dataflows.options import integer

_KEYWORD = re.compile(r"(?<![\w./=-])(\w+)=('[^']*'|\w+)")  # as errors name options, such as on_error='skip'


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question to add to an error message, or "" if none of the known words is like this one.

    Case, and dashes in front, do not count.

    >>> did_you_mean("--num_worker", ["--num-workers", "--seed"])
    '; did you mean --num-workers instead of --num_worker?'
    """
    names = {_name(one): one for one in known}
    close = difflib.get_close_matches(_name(word), names, n=1)
    return f"; did you mean {names[close[0]]} instead of {word}?" if close else ""


def _name(word: str) -> str:
    return word.lstrip("-").lower()


def whole_number(least: int) -> Callable[[str], int]:
    """The `type` of an option that is an integer of at least `least`."""
    def parse(text: str) -> int:
        try:
            return integer("it", int(text), least)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, not {text}") from None

    return parse


class ArgumentParser(argparse.ArgumentParser):
    """argparse's, whose errors (exit code 2) name the option, command or choice that a misspelt one resembles.

    Beginnings of options are options, as argparse has it. `parse_known_args` refuses what it does not know, as
    `parse_args` does: so the command that was given answers, with its own usage and options.
    """

    _words: Sequence[str] = ()  # of the command line that is being parsed

    def parse_known_args(self, args: Sequence[str] | None = None,  # type: ignore[override]
                         namespace: argparse.Namespace | None = None) -> tuple[argparse.Namespace, list[str]]:
        self._words = sys.argv[1:] if args is None else list(args)
        known, rest = super().parse_known_args(self._words, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return known, rest

    def in_flags(self, text: str) -> str:
        """A text for callers in Python as one for the command line: on_error='skip' in it becomes --on-error skip."""
        return _KEYWORD.sub(lambda found: self._flag(*found.groups()) or found[0], text)

    def _flag(self, name: str, value: str) -> str | None:
        """What gives this value to an option; None if nothing does."""
        for action in self._actions:
            if action.dest == name and action.option_strings:
                flag = action.option_strings[-1]
                if action.nargs != 0:
                    return f"{flag} {value.strip(chr(39))}"
                if repr(action.const) == value:
                    return flag
        return None

    def error(self, message: str) -> NoReturn:
        """Ends the program with the usage, the message, and what was meant: any error may come of a misspelt option."""
        options = itertools.takewhile(lambda word: word != "--", self._words)
        super().error(message + "".join(map(self._meant, options)))

    def _meant(self, word: str) -> str:
        """The question for a word that is no option and no beginning of one."""
        option, known = word.partition("=")[0], self._option_string_actions
        is_option = not option.startswith("-") or any(name.startswith(option) for name in known)
        return "" if is_option else did_you_mean(option, known)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += did_you_mean(str(value), map(str, action.choices or ()))
            raise

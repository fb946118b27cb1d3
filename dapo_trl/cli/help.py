"""``--help`` of a command that takes settings: its options, and its settings by group."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import yaml

from ..errors import ConfigError, did_you_mean
from .outline import UNKNOWN, Declared, groups


class SettingsHelp(argparse.Action):
    """``--help``: the options, and each setting with its default and the first sentence on it. ``--help NAME``: a group
    of settings, or one of them, with all that there is to know.

    Args:
        owners: File and name of the classes that declare the settings, as in `outline.TRAINER`.
        aliases: Gives the short names of settings as flags, and the settings.
        without: Settings that are options of the command itself.
    """

    def __init__(
        self,
        option_strings: list[str],
        dest: str,
        *,
        owners: tuple[tuple[str, str], ...],
        aliases: Callable[[], Mapping[str, str]] = dict,
        without: Collection[str] = (),
        **_: Any,
    ):
        words = "show this, or a group of settings in full, or a single one"
        super().__init__(option_strings, argparse.SUPPRESS, nargs="?", metavar="NAME", help=words)
        self.owners, self.aliases, self.without = owners, aliases, without

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: Any = None) -> None:
        found = groups(*self.owners)
        if values:
            parser = argparse.ArgumentParser(usage=argparse.SUPPRESS, add_help=False)
            found = self._chosen(found, values)
        else:
            parser.epilog = (
                f"--help NAME shows a group in full: {', '.join(found)}. Beside a setting stands its default."
            )
        for name, (sentence, members) in found.items():
            if name == "other" and not values:
                sentence, members = f"{sentence}: {', '.join(one.name for one in members)}.", []
            self._add(parser.add_argument_group(name, sentence), members, in_full=bool(values))
        parser.print_help()
        parser.exit()

    def _add(self, group: Any, settings: Sequence[Declared], *, in_full: bool) -> None:
        short = {long: name for name, long in self.aliases().items()}
        for one in (one for one in settings if one.name not in self.without):
            doc = " ".join(one.doc.replace("`", "").split())
            text = (
                f"{one.kind.replace(' | None', ' or null')}; {doc}"
                if in_full
                else re.split(r"(?<=\.) (?=[A-Z'])", doc, maxsplit=1)[0]
            )
            group.add_argument(
                f"--{short.get(one.name, one.name)}",
                dest=f"setting {one.name}",
                metavar=_default(one),
                help=text.replace("%", "%%"),
            )

    def _chosen(
        self, found: Mapping[str, tuple[str, list[Declared]]], asked: str
    ) -> dict[str, tuple[str, list[Declared]]]:
        """The group of that name, or the setting in its group."""
        name = asked.lstrip("-").replace("-", "_")
        if name in found:
            return {name: found[name]}
        long = self.aliases().get(name, name)
        for group, (sentence, members) in found.items():
            if one := [member for member in members if member.name == long]:
                return {group: (sentence, one)}
        known = [*found, *(one.name for _, members in found.values() for one in members)]
        raise ConfigError(
            f"--help {asked}: there is no such group and no such setting.{did_you_mean(name, known)} "
            f"The groups are {', '.join(found)}."
        )


def _default(one: Declared) -> str:
    """The default as it is written in a file."""
    if one.default is UNKNOWN:
        return "(by device)"
    return yaml.safe_dump(one.default, default_flow_style=True, width=1000).split("\n")[0]

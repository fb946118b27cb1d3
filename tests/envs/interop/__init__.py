"""What docs/interop.md shows, for the tests of each door."""

import re

from ...conftest import ROOT

PAGE = (ROOT / "docs" / "interop.md").read_text(encoding="utf-8")


def shown(language: str) -> list[str]:
    """The page's blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The page's commands, each in a line."""
    return [line for block in shown("bash") for line in block.splitlines()]

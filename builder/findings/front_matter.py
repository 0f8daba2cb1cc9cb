"""What does the front matter of a file say, and where? YAML between two lines of ``---``.

Read as plain data by PyYAML's safe constructor. Anchors and aliases are refused: nobody needs them
here, and a few lines of them stand for gigabytes. So is a key that stands twice, of which YAML
would take the last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from builder.errors import shown

#: Lists and mappings within each other; a finding needs three, and PyYAML takes depth squared.
DEEPEST = 8
_OPENS = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSES = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
_FENCE = re.compile(r"---[ \t]*$", re.MULTILINE)


class FrontMatterError(ValueError):
    """Front matter that cannot be read; ``line`` is where, from 1."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """Values by key, the line of each key, and the lines of the items of keys that hold a list."""

    values: Mapping[str, Any]
    lines: Mapping[str, int]
    items: Mapping[str, tuple[int, ...]]
    body: str
    body_line: int

    def line_of(self, key: str, item: int | None = None) -> int:
        """The line of a key or of one of its items; for a missing key that of the first ---."""
        lines = self.items.get(key, ())
        if item is not None and item < len(lines):
            return lines[item]
        return self.lines.get(key, 1)


def split_file(text: str) -> FrontMatter:
    """The front matter of a file and the body below it.

    Raises FrontMatterError if there is none, or if it is no plain YAML mapping.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    first = _FENCE.match(text)
    if first is None:
        raise FrontMatterError(1, "has no front matter; the first line must be ---")
    start = first.end() + 1
    last = _FENCE.search(text, start)
    # The fence that ends it stands at the beginning of a line, which search alone does not ensure.
    while last is not None and text[last.start() - 1] != "\n":
        last = _FENCE.search(text, last.end())
    if last is None:
        raise FrontMatterError(1, "the front matter has no end; close it with a line of ---")
    header = text[start : last.start()]
    values, lines, items = _read(header)
    body_line = text.count("\n", 0, last.end()) + 2
    return FrontMatter(values, lines, items, text[last.end() + 1 :], body_line)


def _read(
    header: str,
) -> tuple[dict[str, Any], dict[str, int], dict[str, tuple[int, ...]]]:
    try:
        depth = 0
        for token in yaml.scan(header, Loader=yaml.SafeLoader):
            depth += isinstance(token, _OPENS) - isinstance(token, _CLOSES)
            if depth > DEEPEST:
                raise FrontMatterError(_line(token), "the front matter is nested too deeply")
            if isinstance(token, (yaml.AnchorToken, yaml.AliasToken)):
                line = _line(token)
                raise FrontMatterError(line, "anchors (&) and aliases (*) are not read; quote it")
        node = yaml.compose(header, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        line = 1 if at is None else at.line + 2
        raise FrontMatterError(line, f"not valid YAML: {error.problem or error.context}") from error
    except yaml.reader.ReaderError as error:
        line = header.count("\n", 0, error.position) + 2
        raise FrontMatterError(
            line, f"holds U+{ord(header[error.position]):04X}, which YAML forbids; escape it"
        ) from error
    if not isinstance(node, yaml.MappingNode):
        raise FrontMatterError(1, "the front matter holds no `key: value` lines")
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    items: dict[str, tuple[int, ...]] = {}
    for key_node, value_node in node.value:
        key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "(no text)"
        line = _line(key_node)
        if key in values:
            raise FrontMatterError(line, f"{shown(key)}: stands twice, first on line {lines[key]}")
        lines[key] = line
        values[key] = _value(value_node, key)
        if isinstance(value_node, yaml.SequenceNode):
            items[key] = tuple(_line(item) for item in value_node.value)
    return values, lines, items


def _value(node: Any, key: str) -> Any:
    try:
        return yaml.constructor.SafeConstructor().construct_document(node)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        said = error.problem if isinstance(error, yaml.MarkedYAMLError) else error
        raise FrontMatterError(_line(node), f"{shown(key)}: {said}") from error


def _line(node: Any) -> int:
    """The line of a token or node in the file: the header follows the line of its ``---``."""
    return int(node.start_mark.line) + 2

"""YAML as people read it: the core schema of YAML 1.2, with keys that are text and stand once.

PyYAML reads YAML 1.1, in which `010` is 8, `1:30` is 90, `on` is true and 2026-06-01 is a date.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_TAG = "tag:yaml.org,2002:"


class SettingsLoader(yaml.SafeLoader):
    """Reads null, true, false, decimal numbers and text. Raises `yaml.MarkedYAMLError` for anything else."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  the base class declares no class variable

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._open: set[str] = set()  # anchors of the nodes that are being read

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse an alias of what it stands in, which would have no end."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in self._open:
                mark: Any = event.start_mark
                raise yaml.MarkedYAMLError(problem=f"*{event.anchor} contains itself", problem_mark=mark)
            return super().compose_node(parent, index)
        opened = {event.anchor} - {None, *self._open}
        self._open |= opened
        node = super().compose_node(parent, index)
        self._open -= opened
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Make every key a text, and refuse one that is there twice."""
        mapping: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in mapping.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a name", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value} is there twice; keep one", problem_mark=key.start_mark)
            seen.add(key.value)
            if key.tag != f"{_TAG}merge":
                key.tag = f"{_TAG}str"
        return mapping

    def construct_decimal(self, node: Any) -> int:
        """Read an integer as it is typed: 010 is 10."""
        return int(self.construct_scalar(node))

    def refuse(self, node: Any) -> Any:
        """Refuse a tag such as !!timestamp."""
        raise yaml.MarkedYAMLError(problem=f"{node.tag} cannot be used", problem_mark=node.start_mark)


for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
    ("merge", r"<<", ["<"]),
):
    SettingsLoader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), _first)
SettingsLoader.add_constructor(f"{_TAG}int", SettingsLoader.construct_decimal)
for _name in ("timestamp", "binary", "set", "omap", "pairs"):
    SettingsLoader.add_constructor(_TAG + _name, SettingsLoader.refuse)

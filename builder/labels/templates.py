"""Where do prompts come from, and what names a version of them? Files in templates/prompts/."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2

from builder.assets import asset_dir
from builder.errors import SiteError


@dataclass(frozen=True, slots=True, eq=False)
class PromptTemplates:
    """The templates of a system and a user message; ``version`` is 12 hex digits of a hash of their
    sources.
    """

    system: jinja2.Template
    user: jinja2.Template
    version: str

    def render(self, values: Mapping[str, Any]) -> tuple[str, str, str]:
        """Both messages, and 32 hex digits that stand for them and the templates."""
        messages = self.system.render(values), self.user.render(values)
        return *messages, text_digest(self.version, *messages)[:32]


@cache
def prompt_templates(system: str, user: str) -> PromptTemplates:
    """The templates in two files; raises SiteError if they cannot be read."""
    folder = asset_dir() / "templates" / "prompts"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Prompts are no markup; what goes into them is escaped by `prompts.escape`.
        autoescape=False,  # noqa: S701
    )
    try:
        sources = [(folder / name).read_text(encoding="utf-8") for name in (system, user)]
        found = [environment.from_string(source) for source in sources]
    except (OSError, jinja2.TemplateError) as error:
        raise SiteError(f"{folder}: the prompt templates cannot be read: {error}") from error
    return PromptTemplates(found[0], found[1], text_digest(*sources)[:12])


def text_digest(*parts: str) -> str:
    """SHA-256 over the parts, each with its length, as hex digits."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        state.update(f"{len(data)}:".encode())
        state.update(data)
    return state.hexdigest()

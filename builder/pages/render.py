"""How does a template become a page? One Jinja environment in which nothing hidden gets through.

Everything is escaped; on top, every text a template prints has its hidden characters named, in
attributes too. Text from outside that stands in running text goes through ``visible``, which boxes
them. A name a template does not know is an error, not an empty string.
"""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from builder import __version__
from builder.assets import asset_dir
from builder.config import SiteSettings
from builder.pages import formats
from builder.pages.corpus_view import ENRICHED, RISING
from builder.pages.findings import Findings
from builder.pages.label_view import BEYOND, NOT_A_MODEL, REASONS
from builder.pages.links import root_of
from builder.pages.score_view import STRATUM_NAMES
from builder.pages.spans import LONGEST_LABEL, LONGEST_REMARK, brief, plain, visible
from builder.pages.veils import veiled_by
from builder.pages.views import CONTROL_LESSONS
from builder.pages.written import lens_tokens, score_table, told_briefly
from builder.records import CONTROLS, HAND

#: Nothing is loaded from elsewhere, no inline script or style runs, no form is sent, and scripts
#: put nothing into pages but text. See the notes on security in docs/decisions.md.
CONTENT_SECURITY_POLICY = Markup(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'; trusted-types wa"
)


def _printed(value: Any) -> Any:
    """What an expression in a template prints: hidden characters named, a dash for nothing."""
    if value is None:
        return formats.NONE
    if isinstance(value, str) and not isinstance(value, Markup):
        return plain(value)
    return value


class Renderer:
    """Renders templates for one site; every page has its title, address (if known) and findings."""

    def __init__(
        self, site: SiteSettings, findings: Findings | None = None, compare: str = ""
    ) -> None:
        """``compare`` is the address within the site of what compares its models, if anything."""
        # ruff wants autoescape stated; it is, for every template whatever its name.
        self._environment = Environment(
            loader=FileSystemLoader(asset_dir() / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_printed,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        self._environment.filters.update(
            visible=visible,
            brief=brief,
            fixed=formats.fixed,
            signed=formats.signed,
            short=formats.short,
            whole=formats.whole,
            size=formats.size,
            share=formats.share,
            passed=formats.passed,
            place=formats.place,
            money=formats.money,
            ranged=formats.ranged,
            bar_class=formats.bar_class,
            spaced=formats.spaced,
            lens_tokens=lens_tokens,
            told_briefly=told_briefly,
            score_table=score_table,
        )
        self._environment.globals.update(
            site_title=site.title,
            site_url=site.url,
            authors=site.authors,
            site_warning=site.warning,
            veiled=veiled_by(site.blur),
            all_findings=findings or Findings(),
            compare=compare,
            policy=CONTENT_SECURITY_POLICY,
            version=__version__,
            reasons=REASONS,
            not_a_model=NOT_A_MODEL,
            controls=CONTROLS,
            control_lessons=CONTROL_LESSONS,
            longest_label=LONGEST_LABEL,
            longest_remark=LONGEST_REMARK,
            enriched_below=ENRICHED,
            rising_above=RISING,
            by_hand=HAND,
            stratum_names=STRATUM_NAMES,
            beyond=BEYOND,
        )

    def page(self, template: str, path: str, **values: Any) -> bytes:
        """The page at ``path`` as bytes; templates find the site's top as ``root``.

        That is what leads there from ``path``, unless the values say something else.
        """
        text = self._environment.get_template(template).render(
            {"root": root_of(path), "here": path} | values
        )
        return text.encode("utf-8")

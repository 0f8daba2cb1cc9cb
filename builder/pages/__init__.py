"""How does a run become pages? Views, charts, token spans, links: a static site from run folders.

Rendering reads run folders and writes files. It needs no model, no torch and no network.
"""

from __future__ import annotations

from builder.pages.site import SiteReport, build_site

__all__ = ["SiteReport", "build_site"]

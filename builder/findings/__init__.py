"""What did an auditor conclude? Findings: Markdown files that cite directions and examples.

``finding``       the values: a finding, its citations, a fault with its place
``citation``      the form in which directions and examples are cited
``front_matter``  the YAML at the beginning of a file, with the line of every entry
``body``          the Markdown below it
``reading``       the files of a folder, checked as far as that goes without runs
``bundle``        several findings in one file, as triage exports them

Whether what is cited exists is known to whoever has the runs open: :mod:`builder.pages.findings`.
"""

from __future__ import annotations

from builder.findings.finding import SEVERITIES, STATUSES, Citation, Fault, Finding

__all__ = ["SEVERITIES", "STATUSES", "Citation", "Fault", "Finding"]

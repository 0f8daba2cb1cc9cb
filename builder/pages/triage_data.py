"""What does the triage page read of a model? What search has no use for: hashes, and one order.

Labels and scores come from the scripts of search, examples from the file of each direction as it
is looked at, so that triage costs a site next to nothing.
"""

from __future__ import annotations

from builder.pages.search_data import column, literal
from builder.pages.triggers import Triggers
from builder.pages.views import RunView
from builder.records import POLES

#: The orders one can go through directions in, and what they are called.
ORDERS = (
    ("trigger", "trigger-like first"),
    ("score", "best score of a label first"),
    ("sigma", "largest singular value first"),
)
#: Examples of each pole.
EXAMPLES = 3
#: Characters of an example before and after its peak.
AROUND = 110
#: Directions whose examples are read at once.
_AT_ONCE = 64


def triage_script(run: RunView, triggers: Triggers) -> str:
    """The script of a run's directions, in the order of the scripts of search.

    ``hashes`` are content hashes, ``triggers`` say how trigger-like each pole is, two a direction,
    as on the model's page.
    """
    data = {
        "hashes": column(item.row.content_hash for item in run.directions),
        "triggers": [
            float(f"{found.value:.4g}") if (found := triggers.get((item.row.id, pole))) else None
            for item in run.directions
            for pole in POLES
        ],
    }
    return f"WA.triage({literal(run.name)},{literal(data)});\n"

from __future__ import annotations

from tests.endpoint.asking import environment

__all__ = ["environment"]

"""Julia source from traced ATen graphs."""

from .source import ModelSource, translate

__all__ = ["ModelSource", "translate"]

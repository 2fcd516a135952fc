"""One framework for all tracks of the MER2026 challenge."""

__version__ = "0.1.0"

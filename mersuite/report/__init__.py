"""The self-contained html page of a run."""

"""The backbone that all tracks share: encoders, fusions and how they are put together."""

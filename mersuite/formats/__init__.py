"""File formats of this field that more than one part reads."""

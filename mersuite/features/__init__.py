"""Extractors, one file each, found by file name; they run once, at `mersuite prepare`."""

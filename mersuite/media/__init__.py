"""Bytes to arrays: recordings, sound, pictures, text."""

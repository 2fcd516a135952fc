"""The tracks of the challenge: each folder is one, and adding one edits no other file."""

"""Faces in clips with two people: found, followed, told apart as speaker and listener, cut out."""

"""Offline: a corpus and a model in, an index folder out."""

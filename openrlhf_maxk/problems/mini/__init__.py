"""The embedded benchmark: generated problems with ambiguous statements, and a tiny base model for them.

No download is needed and everything follows from a seed. docs/mini.md describes it.
"""

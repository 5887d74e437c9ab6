"""The commands: ``python -m openrlhf_maxk.cli.<name>``."""

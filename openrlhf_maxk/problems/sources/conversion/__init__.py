"""Conversion: raw inputs, outputs and assert statements come in, tests go out; nothing of a row is run for it."""

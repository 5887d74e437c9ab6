"""A table of training runs from one file: which, run one after the other, and what came of them over seeds."""

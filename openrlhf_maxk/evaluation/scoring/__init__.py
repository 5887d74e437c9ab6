"""Scoring: recorded answers come in, the rewards and verdicts of every sample go out, and to disk as Parquet."""

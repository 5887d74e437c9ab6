"""Rollout: prompts come in, scored groups of n completions go out."""

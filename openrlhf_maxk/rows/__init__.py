"""The forward pass of a group as one row: the prompt once, its completions behind it."""

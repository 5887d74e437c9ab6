"""The shapes that people's problems come in: each a small function from a row to the one :class:`Record`."""

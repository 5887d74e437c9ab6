"""The second embedded benchmark: arithmetic word problems whose answers stand in a box. docs/mini.md describes it."""

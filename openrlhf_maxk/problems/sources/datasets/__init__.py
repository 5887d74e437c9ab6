"""The data sets, one a file: which of its files to read, and how one row of them becomes a problem."""

"""The best of k samples, chosen by running them on tests that may be seen: for a terminal, and as an endpoint."""

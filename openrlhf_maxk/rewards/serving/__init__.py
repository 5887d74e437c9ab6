"""Serving: requests come in from a training run or over HTTP, and are answered by scorers in processes of their own.

The pool of Ray workers, OpenRLHF's reward protocol, SandboxFusion's ``run_code``, and the HTTP server for both.
"""

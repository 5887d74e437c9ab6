"""Samples: a problem set and a source of answers come in; answers in an append-only folder that can be resumed go out.

Sources are vLLM engines, an OpenAI-compatible endpoint, and files made elsewhere.
"""

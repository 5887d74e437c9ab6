"""Judging: a test comes in and becomes a job for the sandbox; how the job ended comes in and becomes a verdict.

Outputs are compared with expected ones here, outside of the sandbox, on data that a program may have chosen.
"""

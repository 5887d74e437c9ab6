"""Preparation: rows come in, a validated store of problems and the account of every row go out.

Decided row by row (converted, compared, validated), then assembled; a journal lets a killed one go on.
"""

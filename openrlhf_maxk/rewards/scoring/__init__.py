"""Scoring: the completions of a prompt and its label come in, one reward for each goes out.

The program or answer in a completion is found, run or compared, and turned into the reward, with its optional terms.
"""

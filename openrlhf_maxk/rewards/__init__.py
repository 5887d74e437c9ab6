"""Rewards: completions come in, a group at a time (:mod:`.request`), numbers go out, or "could not be scored".

``sandbox`` runs a program locked down, ``judging`` says what a test asks and how it ended, ``execution`` runs programs
on problems, ``scoring`` makes rewards of verdicts and answers, ``serving`` spreads it over workers and HTTP.
"""

"""Evaluation: problems and a model, or samples from elsewhere, come in; curves with intervals and reports go out.

``samples`` asks for them and keeps them, ``scoring`` runs them, ``statistics`` estimates, ``reports`` shows.
"""

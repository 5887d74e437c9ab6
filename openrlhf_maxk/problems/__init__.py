"""Problems: what a task is (:mod:`.record`), what running a program on it tells (:mod:`.verdict`), where many are kept.

``mini`` makes the embedded benchmark, ``sources`` turns public data sets into stores of problems.
"""

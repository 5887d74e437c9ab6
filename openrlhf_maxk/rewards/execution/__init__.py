"""Execution: a program and a problem come in, a verdict for every test goes out.

Behind one interface (:mod:`.runner`): this machine's lanes, bubblewrap's containers, services that speak ``run_code``.
"""

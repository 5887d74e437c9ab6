"""Files of samples that other tools wrote: containers come in, then formats, then the problems that they speak of.

A container (:mod:`.containers`) turns a path into rows; a format (:mod:`.formats`) turns a row into answers and what
the file knows of their problem; :mod:`.finding` turns that into an id of the problem store.
"""

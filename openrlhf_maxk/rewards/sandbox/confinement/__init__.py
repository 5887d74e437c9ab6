"""What a program may not do: files, processes, network, system calls, memory, time; one layer a file.

:mod:`.layers` finds out which of them can be had here and applies them to each child.
"""

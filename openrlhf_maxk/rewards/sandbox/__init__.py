"""The sandbox: a fork server that runs one program at a time, locked down, in a process of its own.

``lane`` is the client's half and runs in the caller's process. Everything else runs in the server, which is started as
a fresh interpreter and imports only these files: they use the standard library alone and know nothing of the package.
"""

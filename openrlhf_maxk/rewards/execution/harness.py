"""Sent to a service in front of a program: sets its limits, then runs it as it is, or calls its functions.

This file is read as text, never imported, and must run on its own under any Python from 3.8 on. Its names must not be
seen by the program: one function, which takes itself away.
"""


def _start(packed):
    import base64
    import json
    import os
    import resource
    import sys
    import types
    import zlib
    from typing import Any

    del globals()["_start"]
    job = json.loads(zlib.decompress(base64.b64decode(packed)))

    def limit(kind, soft, hard):
        most = resource.getrlimit(kind)[1]
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(kind, (soft, hard))

    try:
        with open("/proc/self/statm") as statm:
            mapped = int(statm.read().split()[0]) * resource.getpagesize()
    except OSError:
        mapped = 2**26  # more than a bare interpreter needs
    limit(resource.RLIMIT_AS, mapped + job["memory_bytes"], mapped + job["memory_bytes"])
    limit(resource.RLIMIT_CPU, job["cpu_seconds"], job["cpu_seconds"] + 1)
    limit(resource.RLIMIT_CORE, 0, 0)
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)
    streams: list[Any] = [sys.stdin, sys.stdout]
    for stream in streams:
        stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    sys.argv = job["arguments"]
    if job["files"]:
        import tempfile

        try:
            folder = tempfile.mkdtemp()
            for name, text in job["files"].items():
                with open(os.path.join(folder, name), "wb") as file:
                    file.write(base64.b64decode(text))
                sys.argv.append(os.path.join(folder, name))
        except OSError as error:
            os.write(2, (job["nonce"] + " " + str(error)).encode())
            os._exit(1)
    sources = [("<setup>", job["setup"]), ("<program>", job["program"])]
    codes = [compile(source, name, "exec", dont_inherit=True) for name, source in sources if source]
    if job["steps"] is None:
        return codes

    package = sys.modules["sandbox"] = types.ModuleType("sandbox")
    package.__path__ = []
    for name, source in job["modules"].items():
        module = sys.modules["sandbox." + name] = types.ModuleType("sandbox." + name)
        module.__package__ = "sandbox"
        setattr(package, name, module)
        exec(compile(source, name, "exec", dont_inherit=True), module.__dict__)
    calls = sys.modules["sandbox.calls"]
    os.dup2(1, calls.RESULTS)  # results go where the service takes the output from; what is printed goes nowhere
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    solution = sys.modules["__main__"] = sys.modules["solution"] = types.ModuleType("solution")
    for code in codes:
        exec(code, solution.__dict__)
    calls.run(job, solution.__dict__)
    return os._exit(0)

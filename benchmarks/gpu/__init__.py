"""The parts of ``benchmarks/gpu.py``: what is measured on a GPU, and what it takes to run it without Ray and vLLM."""

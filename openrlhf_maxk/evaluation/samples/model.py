"""Which model is evaluated: where its files are, and what tells it from every other model."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_DECISIVE = {".safetensors", ".bin", ".pt", ".json", ".model", ".txt", ".tiktoken", ".jinja", ".py"}


class ModelError(Exception):
    """A model that is not there or cannot be used. The message says what was tried."""


@dataclass(frozen=True)
class Model:
    """A folder of Hugging Face files."""

    name: str  # as the user gave it
    folder: Path
    identity: dict[str, str]  # equal exactly if the model is the same

    def tokenizer(self) -> Any:
        """The model's tokenizer.

        Raises:
            ModelError: it has none that can be loaded.
        """
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self.folder)
        except (OSError, ValueError) as error:
            raise ModelError(f"the model {self.name} has no usable tokenizer: {error}") from None

    def context(self) -> int | None:
        """How many tokens prompt and completion may have together; None if the model does not say."""
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(self.folder)
        except (OSError, ValueError) as error:
            raise ModelError(f"the model {self.name} has no usable config.json: {error}") from None
        return getattr(config.get_text_config(), "max_position_embeddings", None)


def find_model(name: str | os.PathLike[str], revision: str | None = None) -> Model:
    """A folder on disk, known by the SHA-256 of its files wherever it lies; or a model of the hub, known by its commit
    and downloaded if it is not in the cache.

    Raises:
        ModelError: neither is there.
    """
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"{folder} is not a Hugging Face model: it has no config.json")
        return Model(str(name), folder.resolve(), {"sha256": _digest(folder)})
    if folder.is_absolute() or str(name).startswith(".") or str(name).count("/") > 1:
        raise ModelError(f"there is no model at {name}")
    return _from_hub(str(name), revision)


def _from_hub(name: str, revision: str | None) -> Model:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, revision=revision, ignore_patterns=["*.gguf", "*.onnx", "original/*"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"there is no folder {name}, and the hub has no such model within reach: {reason}") from None
    return Model(name, folder, {"hub": name, "commit": folder.name})


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in _DECISIVE and path.is_file():
            with open(path, "rb") as file:
                part = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{path.name} {part}\n".encode())
    return digest.hexdigest()

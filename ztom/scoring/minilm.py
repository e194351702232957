"""all-MiniLM-L6-v2 (Reimers and Gurevych 2019; Wang et al. 2020) through sentence-transformers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

#: Word pieces of a text that count: the model was trained with so many.
MAX_PIECES = 256


class MiniLM:
    """The model, loaded; a batch has the length that its caller says.

    Args:
        folder: Folder of the model as sentence-transformers keeps it.
        device: A torch device.
    """

    def __init__(self, folder: Path, *, device: str = "cpu") -> None:
        from sentence_transformers import SentenceTransformer

        self._device = torch.device(device)
        with _without_progress_bars():
            model = SentenceTransformer(str(folder), device=device, local_files_only=True)
        self._model = model.eval()

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text's word pieces, the special ones included."""
        encoded = self._model.tokenizer(list(texts), truncation=True, max_length=MAX_PIECES)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def embed(self, rows: Sequence[Sequence[int]], *, length: int) -> torch.Tensor:
        """Unit vectors of some texts, float32 on the CPU, shape (rows, 384).

        Args:
            rows: Ids of each text's word pieces, at most ``length``.
            length: Number of word pieces that every text is filled up to.
        """
        filled = self._model.tokenizer.pad(
            {"input_ids": [list(row) for row in rows]},
            padding="max_length",
            max_length=length,
            return_tensors="pt",
        )
        features = {name: tensor.to(self._device) for name, tensor in filled.items()}
        with torch.inference_mode():
            vectors: torch.Tensor = self._model(features)["sentence_embedding"]
        return vectors.cpu()


@contextlib.contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Loading takes a moment; a progress bar of its own would tear the search's."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()

"""all-MiniLM-L6-v2 (Reimers and Gurevych 2019; Wang et al. 2020) with torch alone.

Six layers of BERT, the mean over the tokens' last states, and that at unit length. Torch's own
encoder layer is BERT's layer, so nothing but the names of the weights has to be known. To import
transformers or sentence-transformers for it would cost a process four times what torch costs. The
tokenizer is the file that lies beside the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional

#: Word pieces of a text that count: the model was trained with so many.
MAX_PIECES = 256
_LAYERS, _WIDTH, _HEADS, _INNER, _EPSILON = 6, 384, 12, 1536, 1e-12
#: Torch's names of a layer's parts, and those that the weights are stored under.
_PARTS = {
    "self_attn.out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm2": "output.LayerNorm",
}


class MiniLM:
    """The model, loaded.

    Args:
        folder: Folder with ``model.safetensors`` and ``tokenizer.json``.
        device: A torch device.
    """

    def __init__(self, folder: Path, *, device: str = "cpu") -> None:
        self._device = torch.device(device)
        weights = load_file(folder / "model.safetensors", device=device)
        self._words = weights["embeddings.word_embeddings.weight"]
        # every text is a first segment
        segment = weights["embeddings.token_type_embeddings.weight"][0]
        self._places = weights["embeddings.position_embeddings.weight"] + segment
        self._norm = (
            weights["embeddings.LayerNorm.weight"],
            weights["embeddings.LayerNorm.bias"],
        )
        self._encoder = _encoder(weights).to(self._device).eval()
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_PIECES)

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text's word pieces, the special ones included."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]

    def embed(self, rows: Sequence[Sequence[int]], *, length: int) -> torch.Tensor:
        """Unit vectors of some texts, float32 on the CPU, shape (rows, 384).

        Args:
            rows: Ids of each text's word pieces, at most ``length``.
            length: Number of word pieces that every text is filled up to.
        """
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        counts = torch.tensor([len(row) for row in rows])
        is_filled = torch.arange(length) >= counts[:, None]
        with torch.inference_mode():
            vectors = self._forward(ids.to(self._device), is_filled.to(self._device))
        return vectors.cpu()

    def _forward(self, ids: torch.Tensor, is_filled: torch.Tensor) -> torch.Tensor:
        states = functional.embedding(ids, self._words) + self._places[: ids.shape[1]]
        states = functional.layer_norm(states, (_WIDTH,), *self._norm, _EPSILON)
        states = self._encoder(states, src_key_padding_mask=is_filled)
        counted = (~is_filled).unsqueeze(-1).to(states.dtype)
        mean = (states * counted).sum(dim=1) / counted.sum(dim=1)
        return functional.normalize(mean, dim=1)


def _encoder(weights: dict[str, torch.Tensor]) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        _WIDTH,
        _HEADS,
        _INNER,
        activation="gelu",
        layer_norm_eps=_EPSILON,
        batch_first=True,
        device="meta",
    )
    encoder = nn.TransformerEncoder(layer, _LAYERS, enable_nested_tensor=False)
    state = {}
    for i in range(_LAYERS):
        stored, own = f"encoder.layer.{i}.", f"layers.{i}."
        for kind in ("weight", "bias"):
            state[f"{own}self_attn.in_proj_{kind}"] = torch.cat(
                [
                    weights[f"{stored}attention.self.{part}.{kind}"]
                    for part in ("query", "key", "value")
                ]
            )
            for part, name in _PARTS.items():
                state[f"{own}{part}.{kind}"] = weights[f"{stored}{name}.{kind}"]
    encoder.load_state_dict(state, assign=True)
    return encoder

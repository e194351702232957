"""Output heads: what turns the last hidden states of a language model into logits.

A checkpoint stores its head, or its head is the embedding once more (tied; Press and Wolf 2017,
arXiv:1608.05859) and need not be stored. Which of the two holds is the configuration's to say
(``tie_word_embeddings``); where it leaves that to the family of models, the tensors decide.
"""

from __future__ import annotations

import torch

from ztom.checkpoints.checkpoint import Checkpoint
from ztom.checkpoints.config_checks import find_embedding, find_head, is_head, says_tied
from ztom.checkpoints.tensors import TensorSpec


def tensor_of(checkpoint: Checkpoint, name: str) -> TensorSpec | None:
    """Where a tensor of a chain lies in one checkpoint: a head that is tied is the embedding.

    Args:
        checkpoint: A full model.
        name: Name of the tensor.
    """
    stored = checkpoint.tensors.get(name)
    if stored is None and is_head(name) and checkpoint.tied:
        return find_embedding(checkpoint.tensors)
    return stored


def stored_head(checkpoint: Checkpoint) -> TensorSpec | None:
    """The head that is stored, tied or not; None without one."""
    return find_head(checkpoint.tensors)


def repeats_embedding(checkpoint: Checkpoint) -> bool:
    """Whether the head that is stored is the embedding once more, bit for bit; reads both."""
    head, embedding = stored_head(checkpoint), find_embedding(checkpoint.tensors)
    if head is None or embedding is None or head.shape != embedding.shape:
        return False
    return torch.equal(checkpoint.read(head.name), checkpoint.read(embedding.name))


def ties_head(checkpoint: Checkpoint) -> bool:
    """Whether the model's head is its embedding.

    Only a head that is stored under a configuration that does not say whether it is tied is read.
    """
    stated = says_tied(checkpoint.config)
    if stated is not None:
        return stated
    return checkpoint.tied or repeats_embedding(checkpoint)

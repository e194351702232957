"""Buffers that a checkpoint may store and that every model computes from its configuration.

Older versions of transformers wrote them, newer ones neither write nor read them: rotary
frequencies, positions, causal masks. They are no weights: they are never blended, and no member of
a chain has to have them. Which tensors they are follows from name and shape, because ``attn.bias``
is a mask in GPT-2 and a learned bias elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

#: Buffers whose name alone says what they are.
_BY_NAME = re.compile(
    r"(^|\.)(original_)?inv_freq$"
    r"|(^|\.)rotary_(pos_)?emb\.(cos_cached|sin_cached)$"
    r"|(^|\.)position_ids$"
    r"|(^|\.)(attn|attention|crossattention)\.masked_bias$"
)
#: A causal mask in these is ``[1, 1, positions, positions]``.
_MASK = re.compile(r"(^|\.)((attn|attention|crossattention)\.bias|attn\.causal_mask)$")


def is_derived(name: str, shape: Sequence[int]) -> bool:
    """Whether a stored tensor is a buffer that models compute.

    Args:
        name: Name of the tensor.
        shape: Shape of the tensor.
    """
    if _BY_NAME.search(name):
        return True
    if not _MASK.search(name):
        return False
    return len(shape) == 4 and tuple(shape[:2]) == (1, 1) and shape[2] == shape[3]

"""In what members of a chain may differ, for requests that work on one."""

from __future__ import annotations

from pydantic import BaseModel

from ztom.wire.fields import Names


class AllowedDifferences(BaseModel):
    """What the chain of a request may differ in; see `ztom.blending.chain_file.ChainConfig`.

    Attributes:
        allow_config_differences: Keys of ``config.json`` in which members may differ although that
            changes what their weights compute; the latest one's values hold.
        allow_tokenizer_differences: Whether to go on with the latest one's tokenizer where others
            split the same text differently, or give a few ids to other tokens.
    """

    allow_config_differences: Names = ()
    allow_tokenizer_differences: bool = False

"""vLLM looks at a model's class in the process that loads it anyway.

Before vLLM loads a model it has to know what its class can do, and starts a second process to look:
9 s on two cores, once for each kind of model in each new home. It does so because to import a model
could touch a GPU too early; where there is none, the class may as well be looked at here, through
the registration that vLLM has for models of others.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


def register_classes(registry: Any, folder: Path) -> None:
    """Register the classes of a checkpoint's model, where vLLM knows them by their names.

    What goes wrong is left to vLLM, which then looks in its own way.

    Args:
        registry: vLLM's ``ModelRegistry``.
        folder: Folder with the model's ``config.json``.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        for name in config.get("architectures") or ():
            known = registry.models.get(name)
            if hasattr(known, "module_name"):  # by its name, not imported yet
                registry.register_model(name, known.load_model_cls())
    except Exception as error:  # vLLM raises whatever its models' modules raise
        logger.debug("%s is left to vLLM: %s", folder, error)

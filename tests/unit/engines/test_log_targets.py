"""Handlers that keep lines outlive a new configuration of logging."""

from __future__ import annotations

import logging
import logging.config
from logging.handlers import MemoryHandler
from pathlib import Path

from ztom.engines.log_targets import log_targets_kept


def test_a_handler_has_its_target_after_logging_was_configured(tmp_path: Path) -> None:
    file = logging.FileHandler(tmp_path / "replica.log")
    handler = MemoryHandler(1, target=file)
    logger = logging.getLogger("tests.replica")
    logger.addHandler(handler)
    try:
        with log_targets_kept():  # what vLLM does when it is imported
            logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
            assert handler.target is None
        assert handler.target is file
        logger.warning("goes on")
        assert (tmp_path / "replica.log").read_text() == "goes on\n"
    finally:
        logger.removeHandler(handler)
        handler.close()
        file.close()

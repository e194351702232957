"""Engines turn a blend and prompts into outputs; one protocol, one conformance suite."""

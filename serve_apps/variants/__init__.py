"""Serving one mastered variant behind an OpenAI-compatible API."""

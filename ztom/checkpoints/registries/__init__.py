"""Registries of models: an address with a name and a version, resolved to where the files are."""

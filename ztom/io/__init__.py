"""Whole files, strict YAML and JSON, places in files: what reading and writing stand on."""

"""Variants: blends that were written, can be served, and can be derived again."""

from ztom.variants.manifest import Manifest, verify_manifest

__all__ = ["Manifest", "verify_manifest"]

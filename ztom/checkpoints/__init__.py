"""Checkpoints where they lie: references, stores, archives, safetensors files, LoRA adapters."""

"""The networks: one file a family, one registry, one surface."""

from taxonet.networks.registry import create_model, list_models

__all__ = ["create_model", "list_models"]

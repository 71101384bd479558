"""Pictures of networks as SVG text, read off the network: its stages, and the inside of one block."""

from taxonet.drawing.block import draw_block
from taxonet.drawing.stages import draw_stages

__all__ = ["draw_block", "draw_stages"]

"""The parts of flash_attn.layers that attention code imports."""

"""Models: one a file, each with a config dataclass and `from_pretrained(local folder)`."""

from suffuse.models.dit import DiT, DiTConfig

__all__ = ["DiT", "DiTConfig"]

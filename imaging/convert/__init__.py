"""Write the disk inside one image as another image, digest included."""

from imaging.convert.options import Options
from imaging.convert.run import convert
from imaging.convert.targets import TARGETS, Target, target_name

__all__ = ["TARGETS", "Options", "Target", "convert", "target_name"]

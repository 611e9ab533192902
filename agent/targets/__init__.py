"""Cloud targets: one plug-in file each."""

"""Raw disks: the file is the disk."""

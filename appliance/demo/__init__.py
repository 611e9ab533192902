"""The demo: the whole house on one machine, moving a real image, verified by an independent reader.

`golden.vhdx.xz`: a VHDX written by Windows 10 with a btrfs inside, from LTRData/DiscUtils
(Tests/LibraryTests/Btrfs/Data/btrfs.vhdx.gz, MIT licence).
"""

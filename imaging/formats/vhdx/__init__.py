"""VHDX ([MS-VHDX]). Read `layout` (2.2 and 2.6), `entries` and `bat` (2.5), `log` (2.3), then `device`."""

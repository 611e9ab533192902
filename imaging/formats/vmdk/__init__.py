"""VMDK ("Virtual Disk Format 5.0"). Read `descriptor` (text) and `layout` (bytes), `tables`, then `device`."""

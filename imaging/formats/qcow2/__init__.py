"""qcow2 (qemu, docs/interop/qcow2.txt). Read `layout`, `tables` and `l2`, then `device`."""

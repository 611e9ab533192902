"""The copy engine between a device and a target: plan, pump, limits, verification."""

"""The copy engine between a device and a target: pump, retry, limits, buffers."""

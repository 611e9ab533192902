"""The Azure simulator: page blobs, managed disks and their control plane, strict, with fault injection."""

from appliance.sim.azure.app import AzureSim

__all__ = ["AzureSim"]

"""The Google Cloud simulator: Cloud Storage (XML and JSON), Compute Engine images, tokens."""

from appliance.sim.gcp.app import GcpSim

__all__ = ["GcpSim"]

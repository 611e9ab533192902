"""The AWS simulator: EBS direct APIs, the EC2 calls that make images, S3 uploads, STS and instance metadata."""

from appliance.sim.aws.app import AwsSim

__all__ = ["AwsSim"]

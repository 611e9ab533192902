"""Shares: places on the site where images lie. The registry imports a plug-in on first use."""

from agent.shares.registry import KINDS, open_share

__all__ = ["KINDS", "open_share"]

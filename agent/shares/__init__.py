"""Shares where images lie: one plug-in file each."""

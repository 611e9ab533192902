"""Buckets and objects as both object stores have them: records, bytes, and the XML API of multipart uploads."""

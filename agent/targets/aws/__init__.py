"""AWS: what its targets share (signatures, credentials, control calls, errors) and the targets, one file each."""

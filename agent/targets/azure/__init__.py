"""Azure: what its two targets share (page wire, credentials, errors) and the targets themselves, one file each."""

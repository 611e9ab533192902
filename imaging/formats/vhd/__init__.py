"""VHD ("Virtual Hard Disk Image Format Specification" 1.0). Read `layout` (bytes and values), then `device`."""

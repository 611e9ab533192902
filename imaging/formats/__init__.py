"""Image formats: devices over devices, one family of files a format."""

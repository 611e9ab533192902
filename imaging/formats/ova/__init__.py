"""OVA (DMTF DSP0243, 6.4): a tar archive with an OVF descriptor and disks."""

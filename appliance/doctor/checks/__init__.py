"""The doctor's checks: one file each, with a `CHECK`; appliance.doctor.registry lists them."""

"""The doctor: checks that say whether this appliance can work, and what to do where it cannot. Repairs nothing."""

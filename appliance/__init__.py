"""What turns the agent into an appliance: the imageport command, enrolment, checks, units and simulators."""

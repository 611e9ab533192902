"""Strict simulators of the clouds and hypervisors, with fault injection; share no code with the clients they judge."""

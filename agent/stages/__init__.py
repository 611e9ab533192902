"""The stages of a job: what each one does with source, share and target."""

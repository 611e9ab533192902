"""The signer: the control plane's own process with its keys, its vault and the truth about orders."""

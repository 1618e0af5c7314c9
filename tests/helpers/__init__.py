"""What several tests use: inputs, other writers' files, file systems and kernels that refuse, the contract check."""

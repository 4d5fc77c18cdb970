"""What executes the rounds: one file each, named as they are registered."""

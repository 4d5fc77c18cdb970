"""The commands of the ``fedjoint`` program, one file each."""

"""The joint model: tasks, metrics, backbones, heads and the layout of what is shared."""

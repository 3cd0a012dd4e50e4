"""The networks: backbones that rank, captioners that write."""

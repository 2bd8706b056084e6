"""Building blocks of the networks, without any knowledge of coding."""

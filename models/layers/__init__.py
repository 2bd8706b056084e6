"""Building blocks of the networks (SPEC section 2), without any knowledge of coding."""

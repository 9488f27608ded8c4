"""Model configs, the block and the stacks built from them."""

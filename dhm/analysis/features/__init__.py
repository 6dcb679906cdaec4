"""What branches share: gradients of the trunk, correlation of kernels, likeness of features."""

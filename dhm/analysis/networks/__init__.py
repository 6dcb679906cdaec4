"""The paper's architectures, and what networks cost."""

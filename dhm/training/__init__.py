"""The training loop, alone and over several devices, and what a training costs."""

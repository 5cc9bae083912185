"""Many devices: meshes and the axes laid over them."""

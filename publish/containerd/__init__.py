"""containerd, asked by its client `ctr`: the images of one namespace, read and written."""

"""What travels and how it is checked: the contract, and images. No torch, no Ray, no sockets."""

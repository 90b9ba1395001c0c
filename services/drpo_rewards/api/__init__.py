"""What travels, and how it is checked: the contract and images, without torch, Ray or sockets."""

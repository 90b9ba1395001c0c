"""The judge: a vision-language model that compares two images of one prompt, in this process or behind an endpoint."""

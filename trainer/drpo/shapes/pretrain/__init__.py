"""Makes the embedded model from scratch: autoencoder, text encoder, one-step generator, feature map."""

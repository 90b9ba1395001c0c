"""Makes the embedded model from nothing: autoencoder, text encoder, one-step generator, feature map."""

"""Makes the embedded model from nothing: autoencoder, text encoder, flow teacher, one-step student, feature map."""

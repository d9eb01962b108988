"""AS-GAN: the same person in the clothes of another one, learnt without labels."""

"""What networks on a text and regions of an image share, whatever their family: inputs, backbone, heads."""

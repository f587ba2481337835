"""Training: from a folder of sound to the parts of a bundle. Needs only torch, numpy and safetensors; readers are imported when used."""

"""Training: from a folder of sound to the parts of a bundle.

Needs only torch, numpy and safetensors; readers of sound files are imported when used.
"""

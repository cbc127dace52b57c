"""Using trained models: embedders, generation, answers. Everything here may import torch, so it is imported late."""

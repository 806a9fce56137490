from torch.optim import Optimizer

class AcceleratedOptimizer(Optimizer):
    optimizer: Optimizer

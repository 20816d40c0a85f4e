"""How a trial is trained: one with plain torch.optim, or many as one stacked model."""

"""How a stage is trained: steps, precision, memory, checkpoints, evaluation."""

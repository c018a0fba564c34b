"""What is predicted: target, head, loss, metrics. One file a task."""
